"""A trained model and a prompt to text."""
