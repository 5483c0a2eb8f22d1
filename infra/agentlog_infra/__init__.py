"""Adapters for the log, PostgreSQL, Redis and LangGraph, the embedded servers, and the command line."""
