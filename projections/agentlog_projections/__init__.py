"""What can be read: one file per read model with its table, how facts change it, and its queries."""
