"""Connections to PostgreSQL and its schema migrations."""
