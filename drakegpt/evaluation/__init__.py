"""What a trained model is worth: exact losses, parameter counts, speed, memory."""
