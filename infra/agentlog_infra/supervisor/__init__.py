"""Supervision of the roles as child processes."""
