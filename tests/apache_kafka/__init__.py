"""Apache Kafka for tests, if Java and Maven are installed."""
