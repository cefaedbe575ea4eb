"""Tokens to logits: the ladder of models and what it is built from."""
