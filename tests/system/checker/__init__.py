"""An independent judge: reads the log by the Kafka protocol and docs/log.md alone, and imports nothing of agentlog."""
