"""Streams of threads: all runs of a thread, one after the other, and the updates of its state."""
