"""Sweeps (`train.py -m`): a grid of runs or a search, each run a process of its own, that ends in one report.

Nothing here imports torch.
"""
