"""The embedded servers: log, PostgreSQL, Valkey."""
