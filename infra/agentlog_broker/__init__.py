"""A single-node, durable Kafka-protocol server for one machine; started as a process, imported by nobody."""
