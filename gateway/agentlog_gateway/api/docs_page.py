"""Page under /docs with every operation of openapi.json; it loads no other resource."""

from collections.abc import Sequence
from html import escape

from agentlog_gateway.api.endpoint import Operation

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>agentlog</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
td {{ border-top: 1px solid #8884; padding: .2rem .6rem .2rem 0; vertical-align: top }}
</style>
<h1>agentlog {version}</h1>
<p>The full description, with every body, is <a href="/openapi.json">openapi.json</a>.</p>
{sections}
</html>
"""


def docs_page(operations: Sequence[Operation], version: str) -> str:
    """Return the page, with one table for each tag, in the order of the operations."""
    tags = dict.fromkeys(operation.tag for operation in operations)
    sections = [_section(tag, [one for one in operations if one.tag == tag]) for tag in tags]
    return _PAGE.format(version=escape(version), sections="\n".join(sections))


def _section(tag: str, operations: Sequence[Operation]) -> str:
    rows = "\n".join(_row(operation) for operation in operations)
    return f"<h2>{escape(tag)}</h2>\n<table>\n{rows}\n</table>"


def _row(operation: Operation) -> str:
    query = f"?{', '.join(operation.query.model_fields)}" if operation.query else ""
    body = operation.body.__name__ if operation.body is not None else ""
    cells = (operation.method, f"{operation.path}{query}", operation.summary, body)
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
