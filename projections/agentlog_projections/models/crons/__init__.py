"""Read model `crons`."""
