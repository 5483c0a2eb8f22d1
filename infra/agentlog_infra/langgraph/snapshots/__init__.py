"""Snapshots of threads in the shape of the API, assembled from encoded values."""
