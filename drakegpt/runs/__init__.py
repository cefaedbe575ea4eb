"""Runs on disk: making, training, finding, scoring and loading them."""
