"""What may be asked: one verb per class with its pure decision, and submit, which writes it to the log."""
