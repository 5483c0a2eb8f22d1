"""Queries over the rows that are no read model's own."""
