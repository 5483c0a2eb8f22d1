"""Queries that combine read models, or read the ledger."""
