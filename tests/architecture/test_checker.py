"""The judge of the fault tests is independent: it imports nothing of agentlog, also not by other test files."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKER = Path(__file__).parents[1] / "system" / "checker"
MAY_IMPORT = {"aiokafka", "asyncpg", "redis", "pytest"}
OWN = "tests.system.checker"


def imports(text: str) -> Iterator[str]:
    """Yield the full name of every module that a text imports, wherever in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def foreign(text: str) -> list[str]:
    """Return the imports that the checker must not have."""
    own = [name for name in imports(text) if name == OWN or name.startswith(f"{OWN}.")]
    free = sys.stdlib_module_names | MAY_IMPORT
    return [name for name in imports(text) if name not in own and name.partition(".")[0] not in free]


def test_the_checker_imports_nothing_but_itself_and_what_reads_a_server() -> None:
    modules = sorted(CHECKER.rglob("*.py"))
    assert len(modules) > 5
    assert {path.name: found for path in modules if (found := foreign(path.read_text()))} == {}


def test_an_import_that_looks_into_the_product_is_found() -> None:
    assert foreign("import agentlog_facts.guard") == ["agentlog_facts.guard"]
    assert foreign("def f():\n    from agentlog_infra import events") == ["agentlog_infra"]
    assert foreign("from tests.system.servers import wait_until") == ["tests.system.servers"]
    assert foreign("from .. import api") == [".."]
    assert foreign("import json\nfrom tests.system.checker.fold import judge") == []
