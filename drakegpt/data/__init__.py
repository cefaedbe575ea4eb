"""A corpus to tokens, and tokens to windows."""
