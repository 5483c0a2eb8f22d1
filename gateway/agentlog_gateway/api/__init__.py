"""What every endpoint shares: request context, dependencies, OpenAPI, recorded refusals."""
