"""Importer of a user's project: its import path, environment, modules and digest."""

import asyncio
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from agentlog_facts.errors import Misconfigured
from agentlog_infra.langgraph.errors import EXITS
from agentlog_infra.langgraph.loading.config import GraphsConfig, GraphSpec
from agentlog_infra.project_env import APPLICATION, PRIVATE

T = TypeVar("T")
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})


def prepare(config: GraphsConfig) -> None:
    """Add the project to the import path and set its environment.

    Variables that are set keep their values, except addresses of databases, which may be those of the server. User code
    sees no variable that opens the server's database, queue or log. The settings must have been read before.
    """
    for name in reversed([".", *config.dependencies]):
        folder = (config.root / name).resolve()
        if name.startswith(".") and folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    for name in PRIVATE:
        os.environ.pop(name, None)
    for name, value in config.env.items():
        if name in APPLICATION:
            os.environ[name] = value
        else:
            os.environ.setdefault(name, value)


def without_running_loop(work: Callable[[], T]) -> tuple[T, asyncio.AbstractEventLoop]:
    """Return the result of `work` from a thread of its own, and the event loop that the thread had, which never runs.

    Modules that prepare themselves with `asyncio.run`, or with the current loop's `run_until_complete`, work there.
    """
    loop = asyncio.new_event_loop()

    def run() -> T:
        asyncio.set_event_loop(loop)
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix="import-graphs") as thread:
        try:
            return thread.submit(run).result(), loop
        except BaseException:
            loop.close()
            raise


def load_attribute(config: GraphsConfig, spec: GraphSpec) -> object:
    """Import the object that a graph's spec names. Raises Misconfigured with file, line and error of user code."""
    module = _module(config, spec)
    found: object = module
    for name in spec.attribute.split("."):
        if not hasattr(found, name):
            raise Misconfigured(f"graph {spec.graph_id}: {spec.source} has no attribute {spec.attribute}")
        found = getattr(found, name)
    return found


def _module(config: GraphsConfig, spec: GraphSpec) -> ModuleType:
    file = (config.root / spec.source).resolve()
    if spec.is_file and not file.is_file():
        raise Misconfigured(f"graph {spec.graph_id}: there is no file {spec.source} in {config.root}")
    try:
        return _from_file(config.root, file) if spec.is_file else importlib.import_module(spec.source)
    except (Exception, *EXITS) as error:
        raise Misconfigured(f"graph {spec.graph_id}: {explain_error(error, config.root)}") from error


def _from_file(root: Path, file: Path) -> ModuleType:
    """Import a file under its own module name, or under a generated one if the import path has no name for it."""
    name = _own_name(file)
    if name is not None:
        return importlib.import_module(name)
    name = f"agentlog_graph_{hashlib.sha256(os.path.relpath(file, root).encode()).hexdigest()[:12]}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(file):
        return loaded
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _own_name(file: Path) -> str | None:
    for folder in sys.path:
        if folder and file.is_relative_to(folder):
            parts = file.relative_to(folder).with_suffix("").parts
            name = ".".join(parts)
            if all(part.isidentifier() for part in parts) and _origin(name) == str(file):
                return name
    return None


def _origin(name: str) -> str | None:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None  # its parent is no package, or another module has the name
    return None if found is None or found.origin is None else str(Path(found.origin).resolve())


def explain_error(error: BaseException, root: Path) -> str:
    """Return an error with the file and line of the user's project that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(root)]
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename} line {error.lineno}: {text}"
    return f"{own[-1].filename} line {own[-1].lineno}: {text}" if own else text


def digest(root: Path) -> str:
    """Return the digest of a project's Python files and its `langgraph.json`, paths included."""
    total = hashlib.sha256()
    for file in sorted(_sources(root)):
        total.update(str(file.relative_to(root)).encode() + b"\0")
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in SKIPPED and not _is_foreign(Path(folder) / name)]
        yield from _python(Path(folder), files)


def _python(folder: Path, files: Iterable[str]) -> Iterator[Path]:
    return (folder / name for name in files if name.endswith(".py") or name == "langgraph.json")


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder is hidden or a virtual environment, so not the project's code."""
    return folder.name.startswith(".") or (folder / "pyvenv.cfg").is_file()
