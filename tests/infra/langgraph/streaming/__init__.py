"""Tests of the frames of the streams of runs."""
