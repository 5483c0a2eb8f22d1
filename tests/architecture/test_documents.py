"""References from code and documents: cited sections, headings, decisions, files, links and classes exist."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.architecture.test_house import ROOMS, ROOT, modules, named, nodes, packages, tracked

HTTP_API = ROOT / "docs" / "http-api.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
ROOM_PAGES = tuple(ROOT / room / "README.md" for room in (*ROOMS, "tests"))
PAGES = (
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGES.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *ROOM_PAGES,
    *(ROOT / name / "README.md" for name in ("infra/agentlog_broker", "infra/decisions", "tests/histories")),
)

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_SECTIONS = re.compile(rf"\b([\w./-]+), sections? ({_NUMBER}(?:(?:, | and | to ){_NUMBER})*)")
_ANY_SECTION = re.compile(rf"\bsections? {_NUMBER}")
_HEADING = re.compile(r"^#{2,4} (.+)$", re.MULTILINE)
_CITED_HEADING = re.compile(r'ARCHITECTURE\.md, "([^"]+)"')
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:\./)?[\w-]+(?:[./][\w.-]+)*\.(?:py|md|sh|toml)|[\w.-]+(?:/[\w.-]+)*/")
_CLASS = re.compile(r"`([a-z]\w*)\.([A-Z]\w*)`")
_DECISIONS = re.compile(r"\b[Dd]ecisions? (\d{4}(?: and \d{4})*)")
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def headings(page: Path) -> list[str]:
    """Return the headings of a page."""
    return _HEADING.findall(_FENCED.sub("", page.read_text()))


def prose(path: Path) -> str:
    """Return a module's text with its lines joined, so that a citation may be broken between two."""
    return re.sub(r"\s*\n\s*", " ", path.read_text())


def cited_sections() -> Iterator[tuple[Path, str, str]]:
    """Yield module, document and number of each section that the code cites."""
    for path in modules(*ROOMS, "tests"):
        for document, numbers in _SECTIONS.findall(prose(path)):
            for number in re.findall(_NUMBER, numbers):
                yield path, document, number


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a module, of attributes too."""
    for node in nodes(path):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def slug(heading: str) -> str:
    """Return the anchor that a heading has on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_cited_section_of_the_http_contract_exists() -> None:
    numbers = {heading.split()[0].rstrip(".") for heading in headings(HTTP_API)}
    cited = list(cited_sections())
    assert len(cited) > 40
    assert [(named(path), number) for path, _, number in cited if number not in numbers] == []


def test_every_cited_section_names_its_document() -> None:
    unnamed = [
        f"{named(path)}: {text}"
        for path in modules(*ROOMS, "tests")
        if path != Path(__file__)
        for text in _ANY_SECTION.findall(_SECTIONS.sub("", prose(path)))
    ]
    assert unnamed == []
    assert {document for _, document, _ in cited_sections()} == {named(HTTP_API)}


def test_every_cited_heading_of_the_architecture_exists() -> None:
    known = {heading.partition(":")[0] for heading in headings(ARCHITECTURE)}
    cited = [
        (named(path), heading)
        for path in modules(*ROOMS, "tests")
        if path != Path(__file__)
        for heading in _CITED_HEADING.findall(prose(path))
    ]
    assert cited
    assert [one for one in cited if one[1] not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    files = {named(path) for path in tracked()}
    folders = {f"{parent}/" for name in files for parent in Path(name).parents}
    missing = [
        token
        for token in _CODE.findall(_FENCED.sub("", page.read_text()))
        if _PATH.fullmatch(token) and not any(f"/{one}".endswith(f"/{token}") for one in files | folders)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken: list[str] = []
    for target, anchor in _LINK.findall(page.read_text()):
        if "://" in target:
            continue
        there = (page.parent / target).resolve() if target else page
        if not there.exists() or (anchor and anchor not in {slug(heading) for heading in headings(there)}):
            broken.append(f"{target}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_lists_its_packages(room: str) -> None:
    below = [package for package in packages() if package.parent == ROOT / room]
    found = {path.parent.name for root in below for path in root.glob("*/__init__.py")}
    page = (ROOT / room / "README.md").read_text()
    assert [name for name in sorted(found) if f"`{name}`" not in page and f"`{name}/`" not in page] == []


def test_every_class_that_a_docstring_names_by_its_module_exists() -> None:
    known: dict[str, str] = {}
    for path in modules(*ROOMS, "tests"):
        known[path.stem] = known.get(path.stem, "") + path.read_text()
    missing = [
        f"{named(path)}: `{module}.{name}`"
        for path in modules(*ROOMS, "tests")
        for text in docstrings(path)
        for module, name in _CLASS.findall(text)
        if not re.search(rf"^(?:class )?{name}\b", known.get(module, ""), re.MULTILINE) and find_spec(module) is None
    ]
    assert missing == []


def test_decisions_have_numbers_of_their_own_and_every_cited_one_exists() -> None:
    records = sorted((ROOT / "infra" / "decisions").glob("[0-9]*.md"))
    numbers = [path.name.partition("-")[0] for path in records]
    assert [number for number in numbers if numbers.count(number) > 1] == []
    assert [
        named(path) for path in records if not path.read_text().startswith(f"# {path.name.partition('-')[0]}: ")
    ] == []
    cited = {
        number
        for path in (*modules(*ROOMS, "tests"), *PAGES)
        for found in _DECISIONS.findall(prose(path))
        for number in re.findall(r"\d{4}", found)
    }
    assert cited - set(numbers) == set()
