"""Experiments: arms x seeds as runs side by side, compared at equal rounds, rollouts, tokens and seconds, as a page."""
