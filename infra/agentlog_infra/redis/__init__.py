"""Adapters for Redis: notifications, run queue, verdicts."""
