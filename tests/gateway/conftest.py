"""Decides on what the streams of these tests stand: the same outputs that the contract suites hold to their promise."""

from tests.contracts.conftest import apache_kafka, broker, env

__all__ = ["apache_kafka", "broker", "env"]
