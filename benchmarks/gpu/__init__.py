"""`make gpu-check`: what can only be known with a GPU at hand, in a few minutes, one JSON line a finding."""
