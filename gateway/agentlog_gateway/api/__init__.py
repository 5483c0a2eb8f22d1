"""Parts that all endpoints share: request context, dependencies, OpenAPI, recorded refusals."""
