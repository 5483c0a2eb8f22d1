"""Attempts of runs after the first: what earlier ones left, whether the run is over, and stops of nodes."""
