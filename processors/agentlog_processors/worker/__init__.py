"""The worker: claim runs, execute them, end them."""
