"""HTTP mechanics: bodies, errors, responses, CORS, long polls, the draining server."""
