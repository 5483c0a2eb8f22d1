"""Metrics of this gateway and of the whole server, as Prometheus text and as JSON."""
