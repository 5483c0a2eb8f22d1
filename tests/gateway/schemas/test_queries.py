"""Parsing of query strings: flags, bounded numbers, repeated names, lists."""

import pytest
from starlette.datastructures import QueryParams

from agentlog_gateway.http.errors import Problem
from agentlog_gateway.schemas.queries import (
    CancelQuery,
    HealthCheckQuery,
    JoinStreamQuery,
    PastStatesQuery,
    QueryString,
    RunListQuery,
    StateQuery,
)


def read(model: type[QueryString], text: str) -> dict[str, object]:
    """Parse a query string as a request does."""
    given = QueryParams(text)
    return model.model_validate({name: given.getlist(name) for name in given}).model_dump()


def test_nothing_given_means_the_defaults() -> None:
    assert read(RunListQuery, "") == {"limit": 10, "offset": 0, "status": None, "select": []}
    assert read(PastStatesQuery, "") == {"limit": 1, "before": None, "select": []}
    assert read(CancelQuery, "") == {"wait": False, "action": "interrupt"}
    assert read(JoinStreamQuery, "other=1") == {"cancel_on_disconnect": False, "stream_mode": []}


@pytest.mark.parametrize(
    ("text", "yes"),
    [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("", False), ("2", False), ("t", False)],
)
def test_a_flag_is_written_loosely(text: str, yes: bool) -> None:
    assert read(HealthCheckQuery, f"check_db={text}") == {"check_db": yes}


def test_of_several_values_the_last_one_counts() -> None:
    found = read(RunListQuery, "limit=1&limit=2&status=a&status=b&offset=x&offset=3")
    assert found == {"limit": 2, "offset": 3, "status": "b", "select": []}


@pytest.mark.parametrize("text", ["select=values&select=next", "select=values,next", "select=,values,&select=next"])
def test_fields_of_a_state_are_repeated_or_separated_by_commas(text: str) -> None:
    assert read(StateQuery, text)["select"] == ["values", "next"]


def test_stream_modes_and_fields_of_runs_come_as_they_are() -> None:
    assert read(JoinStreamQuery, "stream_mode=a,b&stream_mode=c")["stream_mode"] == ["a,b", "c"]
    assert read(RunListQuery, "select=a,b")["select"] == ["a,b"]


@pytest.mark.parametrize(
    ("model", "text", "status", "detail"),
    [
        (RunListQuery, "limit=abc", 400, "Invalid limit abc"),
        (RunListQuery, "limit=abc&offset=def", 400, "Invalid limit abc"),
        (RunListQuery, f"offset={10**23}", 400, "Invalid offset: expected at most 2147483647"),
        (PastStatesQuery, "limit=abc", 422, "Invalid limit abc"),
        (PastStatesQuery, "limit=", 422, "Invalid limit "),
        (PastStatesQuery, f"limit={-(2**31)}", 422, "Invalid limit: expected at most 2147483647"),
        (CancelQuery, "action=stop", 422, "action: expected interrupt or rollback, found 'stop'"),
    ],
)
def test_what_cannot_be_read_is_refused_as_the_contract_says(
    model: type[QueryString], text: str, status: int, detail: str
) -> None:
    with pytest.raises(Problem) as refused:
        read(model, text)
    assert (refused.value.status, refused.value.detail) == (status, detail)
