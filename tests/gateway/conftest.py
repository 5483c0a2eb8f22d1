"""Fixtures of the streams' tests: the outputs of the contract suites."""

from tests.contracts.conftest import apache_kafka, broker, env

__all__ = ["apache_kafka", "broker", "env"]
