"""Benchmark of agentlog: throughput, latencies, CPU and storage. Not part of the wheel."""
