"""The embedded log: a single-node server of the Kafka protocol that acknowledges only what is on disk."""
