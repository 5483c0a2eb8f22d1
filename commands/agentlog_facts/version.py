"""The version of agentlog, said in one place: the build, the API and every run's provenance read it here."""

VERSION = "0.1.0"
