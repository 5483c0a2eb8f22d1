"""How agentlog speaks to machines: adapters for the log, PostgreSQL, Redis and LangGraph, and the command line."""
