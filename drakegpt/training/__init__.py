"""Windows and a model to a trained checkpoint."""
