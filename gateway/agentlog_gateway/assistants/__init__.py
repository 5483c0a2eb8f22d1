"""Assistants: their endpoints, their use by runs, and those that the server makes."""
