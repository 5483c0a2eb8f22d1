"""Projections: rows in PostgreSQL, folded from the log, and the questions that they answer."""
