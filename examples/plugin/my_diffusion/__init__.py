"""A plugin of ddpm: a dataset, a network and a prediction; conf/ names them."""
