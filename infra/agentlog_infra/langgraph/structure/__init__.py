"""Structure of graphs for clients: drawings, JSON schemas, subgraphs."""
