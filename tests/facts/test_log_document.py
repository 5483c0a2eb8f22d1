"""Agreement of docs/log.md with the code."""

from tests.facts.log_document import PAGE, render


def test_the_page_on_the_log_is_what_the_code_writes() -> None:
    assert PAGE.read_text() == render(), "run: python -m tests.facts.log_document"
