"""Adapters for LangGraph: loading, executing and reading graphs."""
