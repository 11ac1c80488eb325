"""Samplers of others than the paper's, which take fewer steps: a file for each."""
