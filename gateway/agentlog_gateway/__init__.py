"""HTTP API of agentlog, in the form of the LangGraph Agent Server."""
