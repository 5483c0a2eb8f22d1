"""Graphs that run without a model key: what `./infra/run`, the demo, the benchmarks and the system tests serve."""
