"""What worker and housekeeper share about runs."""
