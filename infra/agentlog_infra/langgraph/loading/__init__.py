"""Loading of graphs: `langgraph.json`, modules of the user, graphs and their factories."""
