"""Benchmarks of training and generation against reference code and the hardware limit."""
