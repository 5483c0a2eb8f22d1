"""Frames of the streams of runs."""
