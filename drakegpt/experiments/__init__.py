"""Experiments: runs of several variants trained side by side and set against each other."""
