"""The judge of the fault tests is independent, imports nothing of agentlog, and is asked wherever tests do harm."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
CHECKER = TESTS / "system" / "checker"
MAY_IMPORT = {"aiokafka", "asyncpg", "redis", "pytest"}
OWN = "tests.system.checker"
HARM = re.compile(
    r"\bkill\w*\(|\.kill_\w+|SIGKILL|SIGSTOP|\bstrike\(|\bsignal_\w+\(|stop_server|\bserver\.stop\b|DROP DATABASE"
)
"""How tests of a whole server kill, pause, stop and drop."""
JUDGED = re.compile(r"\bawait ([\w.]+\.)?judged(_well)?\(")
BLIND = {"check", "weigh", "judge_all"}
"""What judges a log without the verdicts of the server: what the server wrongly let count is invisible to it."""


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


def unjudged(text: str) -> bool:
    """Tell whether a test hurts a server and does not ask `judged_well`, or judges its log in a way that is blind."""
    names = {
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{OWN}.")
        for alias in node.names
    }
    return bool(names & BLIND) or (HARM.search(text) is not None and JUDGED.search(text) is None)


def test_whoever_hurts_a_server_has_its_log_judged_beside_the_verdicts_of_the_server() -> None:
    files = [*sorted((TESTS / "system").glob("test_*.py")), TESTS / "infra" / "supervisor" / "test_dev_server.py"]
    texts = {path.name: path.read_text() for path in files}
    assert len([name for name, text in texts.items() if HARM.search(text)]) > 8
    assert {name for name, text in texts.items() if unjudged(text)} == set()


def test_a_test_that_judges_blindly_or_not_at_all_is_found() -> None:
    for harm in ("server.kill_role('worker')", "os.kill(1, 9)", "to_thread(server.stop)", "p.send_signal(s.SIGSTOP)"):
        assert unjudged(harm), harm
        assert not unjudged(f"async def f():\n    {harm}\n    await judged_well(kafka, postgres)")
    assert unjudged("from tests.system.checker.invariants import check")
    assert unjudged("from tests.system.checker.judgement import judge_all, judged_well")
    assert not unjudged("from tests.system.checker.fold import judge")
