"""Durable single-node server of the Kafka protocol for one machine; a process that no other package imports."""
