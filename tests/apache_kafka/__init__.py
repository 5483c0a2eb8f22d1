"""A real Apache Kafka for tests, where Java and Maven are."""
