"""Puzzles whose answers are hard to find and easy to check, in plain English: a family a file."""
