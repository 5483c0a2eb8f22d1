"""Schema that the tables of all read models share, and the search of stored JSON."""

from collections.abc import Iterator, Sequence

from agentlog_facts.json_value import Json, JsonObject, dump

SCHEMA = "read_v1"
SEARCHABLE_BYTES = 32 * 1024 * 1024
"""Longer texts are not searched: PostgreSQL cannot make jsonb of all of them (it holds 16,777,216 elements, which take
32 MiB), and one such row would fail each search over it."""
PRELUDE = r"""
CREATE SCHEMA IF NOT EXISTS read_v1;
-- jsonb cannot hold \u0000; for searching it counts as U+FFFD. What is shown comes from the json as it was stored.
CREATE OR REPLACE FUNCTION read_v1.searchable(stored json) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN strpos(stored::text, '\u0000') = 0 THEN stored::text::jsonb
                ELSE regexp_replace(stored::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::jsonb END
$$;
"""


def searchable(column: str) -> str:
    """Return the SQL for a column of JSON as jsonb; null where its text is too long to be searched."""
    return f"CASE WHEN octet_length({column}::text) <= {SEARCHABLE_BYTES} THEN read_v1.searchable({column}) END"


def matches(stored: str, wanted: str, lists: str) -> str:
    """Return the SQL condition of a filter on JSON: objects match by containment, lists only whole.

    `stored` is the SQL of the searched jsonb, `wanted` and `lists` are parameters with what `contained` and
    `listed` return. Source: docs/http-api.md, section 5.3.
    """
    return f"({wanted}::jsonb IS NULL OR {contains(stored, wanted)}) AND {has_lists(stored, lists)}"


def contains(stored: str, wanted: str) -> str:
    """Return the SQL condition that a stored jsonb contains `wanted`, which is not null."""
    return f"({stored}) @> {wanted}::jsonb"


def has_lists(stored: str, lists: str) -> str:
    """Return the SQL condition that a stored jsonb has whole lists; `lists` is what `listed` returns."""
    return f"""NOT EXISTS (SELECT FROM jsonb_to_recordset({lists}::jsonb) AS l(path text[], value jsonb)
                    WHERE ({stored}) #> l.path IS DISTINCT FROM l.value)"""


def matches_none(stored: str, unwanted: str) -> str:
    """Return the SQL condition that a stored jsonb matches no filter of a list; `unwanted`: see `alternatives`."""
    return f"""NOT EXISTS (SELECT FROM jsonb_to_recordset({unwanted}::jsonb) AS e(wanted jsonb, lists jsonb)
                    WHERE {contains(stored, "e.wanted")} AND {has_lists(stored, "e.lists")})"""


def alternatives(filters: Sequence[JsonObject]) -> str:
    """Return filters by containment, none of them empty, as JSON: a list of {wanted, lists}."""
    return dump([{"wanted": without_nul(one), "lists": [*_lists(without_nul(one), ())]} for one in filters]).decode()


def listed(wanted: JsonObject | None) -> str | None:
    """Return the lists of a containment filter with their paths, as JSON; None if it has none."""
    found: list[Json] = [*_lists(without_nul(wanted or {}), ())]
    return dump(found).decode() if found else None


def _lists(value: Json, path: tuple[str, ...]) -> Iterator[JsonObject]:
    if isinstance(value, list):
        yield {"path": [*path], "value": value}
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _lists(item, (*path, name))


def contained(wanted: JsonObject | None) -> str | None:
    """Return a containment filter in the form of the searched JSON, U+FFFD in place of NUL; {} is no filter."""
    if not wanted:
        return None
    text = dump(wanted).decode()
    return text if "\\u0000" not in text else dump(without_nul(wanted)).decode()


def without_nul(value: Json) -> Json:
    """Return a value in the form of the searched JSON: U+FFFD in place of NUL."""
    match value:
        case str():
            return value.replace("\x00", "\ufffd")
        case list():
            return [without_nul(item) for item in value]
        case dict():
            return {name.replace("\x00", "\ufffd"): without_nul(item) for name, item in value.items()}
        case _:
            return value
