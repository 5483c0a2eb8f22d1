"""Endpoints of crons."""
