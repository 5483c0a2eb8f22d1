"""Consistency of reads: tokens, projections that have caught up, and answers remembered by version."""
