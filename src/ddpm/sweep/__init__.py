"""`-m`: a grid of runs, or a search, each run a process of its own, ending in one report. Never imports torch."""
