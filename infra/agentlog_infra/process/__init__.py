"""Operating-system processes: start, watch, stop."""
