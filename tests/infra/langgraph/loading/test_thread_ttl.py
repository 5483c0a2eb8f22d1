"""`checkpointer.ttl` of langgraph.json."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.infra.projects import write_project

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import Json
from agentlog_infra.langgraph.loading.thread_ttl import ThreadTtl, thread_ttl


def found(folder: Path, ttl: Json) -> ThreadTtl:
    return thread_ttl(write_project(folder, {}, {"g": "m:g"}, checkpointer={"ttl": ttl}))


def test_a_project_without_it_has_threads_that_never_expire_and_sweeps_those_that_say_so(tmp_path: Path) -> None:
    assert thread_ttl(write_project(tmp_path, {}, {"g": "m:g"})) == ThreadTtl(None, timedelta(minutes=5), 1_000)
    assert found(tmp_path, {"strategy": "delete"}) == ThreadTtl()


def test_it_gives_every_new_thread_a_ttl(tmp_path: Path) -> None:
    stated: Json = {"strategy": "keep_latest", "default_ttl": 90, "sweep_interval_minutes": 0.5, "sweep_limit": 7}
    expected = ThreadTtl({"strategy": "keep_latest", "ttl_minutes": 90}, timedelta(seconds=30), 7)
    assert found(tmp_path, stated) == expected
    assert found(tmp_path, {"default_ttl": 1}).default == {"strategy": "delete", "ttl_minutes": 1}


@pytest.mark.parametrize(
    ("ttl", "named"),
    [
        (5, "ttl: expected an object"),
        ({"strategy": "forget"}, "strategy: expected delete or keep_latest"),
        ({"default_ttl": 0}, "default_ttl: expected minutes"),
        ({"default_ttl": "5"}, "default_ttl: expected minutes"),
        ({"sweep_interval_minutes": -1}, "sweep_interval_minutes: expected minutes"),
        ({"sweep_limit": 0}, "sweep_limit: expected a number"),
        ({"default": 5}, "unknown key default"),
    ],
)
def test_a_mistake_forbids_the_start(tmp_path: Path, ttl: Json, named: str) -> None:
    with pytest.raises(Misconfigured, match=rf"checkpointer\.ttl.*{named.split(': ')[-1]}"):
        found(tmp_path, ttl)
