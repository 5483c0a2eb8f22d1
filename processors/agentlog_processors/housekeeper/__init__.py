"""Periodic duties: reap lost runs, reconcile the queue, purge rows."""
