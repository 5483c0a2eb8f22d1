"""Services, event loops and threads of the processors."""
