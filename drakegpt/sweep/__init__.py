"""A search for good hyperparameters: what is searched, the study, its trials, its figures."""
