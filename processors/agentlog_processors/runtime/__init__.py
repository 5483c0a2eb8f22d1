"""Services, event loops and threads that processors run on."""
