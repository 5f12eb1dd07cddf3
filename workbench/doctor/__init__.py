"""What works on this machine, a sentence each."""
