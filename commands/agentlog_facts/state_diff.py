"""Changes of the JSON view of a thread's values: `set`, `append` and `remove` per top-level key, not a full copy."""

from agentlog_facts.json_value import Json, JsonObject, as_object, dump


def diff_state(before: JsonObject, after: JsonObject) -> JsonObject:
    """Return the change that leads from `before` to `after`; {} when they are equal."""
    setting: JsonObject = {}
    appending: JsonObject = {}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, list) and isinstance(old, list) and 0 < len(old) < len(value):
            if _same(old, value[: len(old)]):
                appending[key] = value[len(old) :]
            else:
                setting[key] = value
        elif key not in before or not _same(old, value):
            setting[key] = value
    removing: list[Json] = [key for key in before if key not in after]
    return _sparse(setting, appending, removing)


def _sparse(setting: JsonObject, appending: JsonObject, removing: list[Json]) -> JsonObject:
    change: JsonObject = {}
    if setting:
        change["set"] = setting
    if appending:
        change["append"] = appending
    if removing:
        change["remove"] = removing
    return change


def _same(old: Json, new: Json) -> bool:
    return dump(old) == dump(new)  # not `==`: 1, 1.0 and True are equal in Python and different in JSON


def apply_diff(before: JsonObject, change: JsonObject) -> JsonObject:
    """Return `before` with the change applied; raise ValueError for a change of another shape."""
    after = dict(before)
    removing = change.get("remove", [])
    if not isinstance(removing, list):
        raise ValueError("view change: `remove` is not a list")
    for key in removing:
        after.pop(str(key), None)
    after |= as_object(change.get("set", {}), "view change: set")
    for key, items in as_object(change.get("append", {}), "view change: append").items():
        old = after.get(key, [])
        if not isinstance(old, list) or not isinstance(items, list):
            raise ValueError(f"view change: cannot append to {key}")
        after[key] = [*old, *items]
    return after
