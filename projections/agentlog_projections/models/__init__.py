"""Read models, one module per noun."""
