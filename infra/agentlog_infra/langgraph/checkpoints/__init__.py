"""LangGraph's checkpoint saver over the event log."""
