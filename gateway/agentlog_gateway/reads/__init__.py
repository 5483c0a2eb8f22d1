"""Consistency of reads: tokens, and projections that have caught up."""
