"""Names of the topics of the log."""

EVENTS = "agentlog.events"
OUTPUTS = "agentlog.outputs"
BLOBS = "agentlog.blobs"
