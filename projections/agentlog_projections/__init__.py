"""Projections: rows in PostgreSQL, folded from the log, and the queries on them."""
