"""Rebuilding projections: shadow schema, bounded reads, parity."""
