"""The version of agentlog, said in one place: the build, the API and every run's provenance read it here."""

VERSION = "0.1.0"
CONTRACT = "0.16.7"
"""The release of the Agent Server API that the gateway follows, and that clients read as the version of the server."""
