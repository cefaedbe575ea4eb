"""Hyperparameter search: definition, search space, study, trials and plots."""
