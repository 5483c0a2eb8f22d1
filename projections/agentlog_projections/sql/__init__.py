"""PostgreSQL helpers shared by models, projector and queries."""
