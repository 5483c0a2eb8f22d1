"""Models of queries, bodies and responses."""
