"""What a trained model is worth: exact losses, parameter counts, comparisons."""
