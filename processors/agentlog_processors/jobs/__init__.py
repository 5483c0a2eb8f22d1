"""One-off jobs: migrations, rebuild, projection commands."""
