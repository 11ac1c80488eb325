"""Datasets, the one conversion between bytes and [-1, 1], and the DataModule that serves them all.

    pixels.py       uint8 <-> [-1, 1], flips
    dataset.py      what a dataset is: Dataset, Examples; examples held in one array
    order.py        which examples make up global batch k
    module.py       the LightningDataModule

Nothing is imported here, so that one dataset does not pay for the libraries of another.
"""
