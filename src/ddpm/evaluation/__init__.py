"""From a reverse process to numbers: samples -> features -> metrics, and the bound over a split."""
