"""How the world speaks to agentlog: one file per resource of the LangGraph API."""
