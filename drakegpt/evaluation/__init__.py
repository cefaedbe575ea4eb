"""Measures models: exact losses, n-gram baselines, surprisal, noise, published sizes."""
