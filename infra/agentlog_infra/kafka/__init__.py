"""Adapters for Kafka: events, blobs, topics, connections."""
