"""Remembered answers: served for their version only, within the budget, and known again by their entity tag."""

import pytest
from starlette.requests import Request

from agentlog_facts.ids import ThreadId
from agentlog_gateway.reads.remembered_answers import (
    CACHE_BYTES,
    LARGEST_SHARE,
    Answer,
    RememberedAnswers,
    answer_response,
)
from agentlog_infra.settings import Settings

THREAD, QUESTION = ThreadId("t1"), b"state"
ANSWER = Answer(b"{}", lasting=True)


def request(method: str, *if_none_match: str) -> Request:
    headers = [(b"if-none-match", value.encode()) for value in if_none_match]
    return Request({"type": "http", "method": method, "headers": headers})


def test_an_answer_serves_its_question_at_its_version_only() -> None:
    answers = RememberedAnswers()
    answers.remember(THREAD, QUESTION, "1", ANSWER)
    now = answers.now()
    assert answers.find(THREAD, QUESTION, "1", now) is ANSWER
    assert answers.find(THREAD, QUESTION, "2", now) is None
    assert answers.find(THREAD, b"history", "1", now) is None
    assert answers.find(ThreadId("t2"), QUESTION, "1", now) is None


def test_an_answer_serves_no_request_that_read_the_version_before_it_was_remembered() -> None:
    answers = RememberedAnswers()
    before = answers.now()
    answers.remember(THREAD, QUESTION, "1", ANSWER)  # its rows may have moved on since then
    assert answers.find(THREAD, QUESTION, "1", before) is None


def test_an_answer_that_rows_alone_do_not_decide_is_not_remembered() -> None:
    answers = RememberedAnswers()
    answers.remember(THREAD, QUESTION, "1", Answer(b"{}", lasting=False))
    assert answers.find(THREAD, QUESTION, "1", answers.now()) is None


def test_answers_beyond_the_budget_are_forgotten_and_a_large_one_is_not_remembered() -> None:
    answers = RememberedAnswers(100_000)
    large = Answer(b"x" * (100_000 // LARGEST_SHARE), lasting=True)
    answers.remember(THREAD, b"large", "1", large)
    assert answers.find(THREAD, b"large", "1", answers.now()) is None
    for number in range(20):
        answers.remember(THREAD, b"%d" % number, "1", Answer(b"x" * 10_000, lasting=True))
    kept = [number for number in range(20) if answers.find(THREAD, b"%d" % number, "1", answers.now())]
    assert kept == list(range(11, 20))


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ([], 200),
        ([""], 200),
        (['"other"'], 200),
        ([ANSWER.tag], 304),
        ([f"W/{ANSWER.tag}"], 304),
        ([f'"other", {ANSWER.tag}'], 304),
        (['"other"', ANSWER.tag], 304),
        (["*"], 304),
    ],
)
def test_a_client_that_has_the_answer_gets_no_body(given: list[str], status: int) -> None:
    response = answer_response(request("GET", *given), ANSWER)
    assert (response.status_code, response.body) == (status, b"{}" if status == 200 else b"")
    assert (response.headers["etag"], response.headers["cache-control"]) == (ANSWER.tag, "private, no-cache")


def test_a_post_gets_the_body_and_no_tag_whatever_it_has() -> None:
    response = answer_response(request("POST", ANSWER.tag), ANSWER)
    assert (response.status_code, response.body, "etag" in response.headers) == (200, b"{}", False)


def test_equal_bodies_have_equal_tags_on_every_gateway() -> None:
    assert Answer(b"[1]", lasting=True).tag == Answer(b"[1]", lasting=False).tag != ANSWER.tag


def test_the_budget_without_a_setting_is_the_default_of_the_setting() -> None:
    assert Settings.load().gateway_cache_bytes == CACHE_BYTES
