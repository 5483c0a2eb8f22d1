"""JSON document of a thread, around its values as they are stored: large values are neither parsed nor encoded.

A parser or an encoder holds the interpreter, and with it the event loop, for about 10 ms per megabyte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentlog_facts.graph_ports import ROOT
from agentlog_facts.json_value import dump, load_object
from agentlog_facts.secret_values import SecretKeys
from agentlog_gateway.schemas.extract import Path, extracted
from agentlog_gateway.schemas.responses import selected, thread_json, ttl_json
from agentlog_projections.models.threads import ThreadText

_ROOTED = b"{%s:" % dump(ROOT)
"""Begin of an object with the key ROOT, which holds values that are no object for clients."""


def thread_document(
    row: ThreadText,
    keys: SecretKeys,
    select: Sequence[str] | None = None,
    paths: Mapping[str, Path] | None = None,
    *,
    with_ttl: bool = False,
) -> bytes:
    """Return the selected fields of a thread (None: all) and the extracted values, as JSON with secrets masked."""
    more = ttl_json(row.thread) if with_ttl else {}
    lifts = any(path[0] == "values" for path in (paths or {}).values())
    if row.values is None or lifts or row.values.startswith(_ROOTED):
        values = None if row.values is None else load_object(row.values)
        whole = thread_json(replace(row.thread, values=values), keys)
        return dump(selected(whole, select) | extracted(whole, paths or {}) | more)
    shown = thread_json(row.thread, keys)
    rest = selected(shown, select) | extracted(shown, paths or {}) | more
    if "values" not in rest:
        return dump(rest)
    del rest["values"]
    return b'%s%s"values":%s}' % (dump(rest)[:-1], b"," if rest else b"", row.values)
