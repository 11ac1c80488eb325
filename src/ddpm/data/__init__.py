"""Datasets, the one conversion between bytes and [-1, 1], and the DataModule that serves them all.

    dataset.py      what a dataset is; examples in one array
    pixels.py       uint8 <-> [-1, 1], flips
    order.py        which examples make up global batch k
    module.py       the LightningDataModule

    digits.py  mnist.py  cifar10.py  swiss_roll.py  photos.py
    folder.py       pictures of your own: a folder, an archive, an LMDB
    picture.py      a picture of any format, mode and size -> uint8 of one shape
    encoded.py      many of them: decoded once into an array, or on the fly
    archive.py      zip, tar
    lsun.py         LMDB

    cache.py        results on disk, whole or absent
    download.py     files from the network, verified

Nothing is imported here, so that one dataset does not pay for the libraries of another.
"""
