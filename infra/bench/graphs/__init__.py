"""Graphs of the benchmark beside the examples; they run on any server of this API."""
