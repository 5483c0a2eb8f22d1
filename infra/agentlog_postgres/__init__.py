"""Connections to PostgreSQL, for the rooms infra and projections alike."""
