"""Upcasters: functions that turn the stored data of an old schema of a fact into that of the next schema."""

from agentlog_facts.json_value import JsonObject


def refused_with_target(data: JsonObject) -> JsonObject:
    """Return CommandRefused of schema 2: schema 1 named no target, and its digest had no salt."""
    kept = {name: value for name, value in data.items() if name != "body_sha256"}
    return {**kept, "target": {}, "body_digest": {"digest": data["body_sha256"], "salt_id": None}}
