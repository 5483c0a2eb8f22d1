"""Recorded logs of every release, and the rows and answers of their fold; see README.md."""
