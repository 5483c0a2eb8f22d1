"""User projects for tests: written to a folder, and loaded like by the server."""

import json
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

from agentlog_facts.json_value import Json
from agentlog_infra.langgraph.loading.config import GraphsConfig, load_config
from agentlog_infra.langgraph.loading.graphs import Graphs


def write_project(folder: Path, files: Mapping[str, str], graphs: Mapping[str, Json], **more: Json) -> GraphsConfig:
    """Write files and a `langgraph.json`; return the loaded configuration."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    (folder / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": dict(graphs), **more}))
    return load_config(folder / "langgraph.json")


@contextmanager
def loaded(folder: Path, files: Mapping[str, str], graphs: Mapping[str, Json], **more: Json) -> Generator[Graphs]:
    """Yield the graphs of a loaded project; remove its modules and path afterwards."""
    modules, path = set(sys.modules), list(sys.path)
    try:
        yield Graphs.load(write_project(folder, files, graphs, **more))
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(folder):
                del sys.modules[name]
