"""`drakegpt compare`: the ladder, low-bit weights and regularization, each as a table."""
