"""Graphs that run without a model key, for `./infra/run`, the demo, the benchmark and the system tests."""
