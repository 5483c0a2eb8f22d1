"""Connections to PostgreSQL, shared by the rooms infra and projections."""
