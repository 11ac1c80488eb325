"""Training on a folder of one's own pictures: a survey of it, trials on this machine, and the settings that follow."""
