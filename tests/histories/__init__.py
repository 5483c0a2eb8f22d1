"""Recorded logs of every release, and what folding them must give; see README.md."""
