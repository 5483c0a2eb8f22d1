"""Streams of runs: cursors, order, encoding."""
