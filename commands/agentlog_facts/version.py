"""Version of agentlog, for the build, the API and the provenance of every run."""

VERSION = "0.1.0"
CONTRACT = "0.16.7"
"""Release of the Agent Server API that the gateway follows; clients read it as the version of the server."""
