"""Tests of snapshots that are assembled from encoded values."""
