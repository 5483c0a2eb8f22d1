"""What follows from facts: one file per duty, delivered at least once and in order per key."""
