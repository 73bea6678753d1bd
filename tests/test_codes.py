"""Every code has a page, every page has a code, and what the pages show can be read."""

from __future__ import annotations

import ast
import io
import re
from importlib import resources

import pytest
from ruamel.yaml import YAML

from gradcheck.case_file import load
from gradcheck.diagnosis.codes import CODES, Code, family, page
from gradcheck.errors import UsageError
from gradcheck.model import Severity, Verdict

SECTIONS = ["What it means", "Why it happens", "Example", "Fix", "When it is harmless"]
DESIGN = (
    "101 102 103 104 105 201 202 203 204 205 206 207 208 301 302 303 401 402 403 404 501 502 601 701 702 703 801 "
    "901 902 903 904 905"
)

each_code = pytest.mark.parametrize("code", CODES.values(), ids=CODES)


def blocks(text: str) -> list[tuple[str, str]]:
    """(label, content) of every fenced block."""
    return re.findall(r"^```([^\n]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def pages() -> list[str]:
    folder = resources.files("gradcheck.diagnosis").joinpath("pages")
    return sorted(entry.name for entry in folder.iterdir())


def test_codes_are_those_of_the_design_in_its_order() -> None:
    assert list(CODES) == [f"GC{number}" for number in DESIGN.split()]


@each_code
def test_fields_hold_words_of_the_model(code: Code) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.name)
    assert code.title == code.title.strip(". ")
    assert not code.title[0].isupper()
    assert code.verdict == "" or Verdict(code.verdict)
    assert Severity(code.severity)


def test_names_and_titles_are_unique() -> None:
    assert len({c.name for c in CODES.values()}) == len(CODES)
    assert len({c.title for c in CODES.values()}) == len(CODES)


def test_no_orphan_pages() -> None:
    assert pages() == sorted(f"{code}.md" for code in CODES)


@each_code
def test_page_has_title_and_five_sections(code: Code) -> None:
    text = page(code.code)
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert text.splitlines()[0] == f"# {code.code} {code.name}: {code.title}"
    assert re.findall(r"^## (.+)$", outside, re.MULTILINE) == SECTIONS
    bodies = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    assert all(body.strip() for body in bodies)


@each_code
def test_page_refers_to_codes_that_exist(code: Code) -> None:
    assert set(re.findall(r"GC\d{3}", page(code.code))) <= set(CODES)


@each_code
def test_example_is_a_whole_case_or_an_illustration(code: Code, tmp_path) -> None:
    found = blocks(page(code.code))
    labels = [label for label, _ in found]
    assert set(labels) <= {"yaml case.yaml", "python step.py", "python illustration", "diff"}
    assert ("yaml case.yaml" in labels) == ("python step.py" in labels) != ("python illustration" in labels)
    examples, fixes = (page(code.code).split(f"## {part}\n")[1].split("\n## ")[0] for part in ("Example", "Fix"))
    for part in (examples, fixes):  # a fix may show a whole file, where a diff would be most of it
        once = [label for label, _ in blocks(part) if label != "diff"]
        assert len(once) == len(set(once))
    for label, content in found:
        if label.startswith("python"):
            ast.parse(content)
        if label.startswith("yaml"):
            YAML(typ="safe").load(io.StringIO(content))
    if "yaml case.yaml" in labels:
        contents = dict(blocks(examples))
        (tmp_path / "case.yaml").write_text(contents["yaml case.yaml"], encoding="utf-8")
        (tmp_path / "step.py").write_text(contents["python step.py"], encoding="utf-8")
        assert load(tmp_path / "case.yaml").name == code.name


@pytest.mark.parametrize("code", [c for c in CODES.values() if "yaml case.yaml" in page(c.code)], ids=lambda c: c.code)
def test_a_diff_takes_away_only_lines_of_the_example(code: Code) -> None:
    found = blocks(page(code.code))
    shown = "".join(content for label, content in found if label != "diff")
    removed = [
        line[1:] for label, content in found if label == "diff" for line in content.splitlines() if line[:1] == "-"
    ]
    lines = [re.sub(r"\s+#.*", "", line) for line in shown.splitlines()]
    for line in removed:
        assert any(re.sub(r"\s+#.*", "", line).strip() in shown_line for shown_line in lines), line


@pytest.mark.parametrize("spelling", ["GC202", "gc202", "202", "noise-redrawn", "Noise-Redrawn", " GC202 "])
def test_page_is_found_under_every_spelling(spelling: str) -> None:
    assert page(spelling).startswith("# GC202 ")


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("GC209", "did you mean GC20"),
        ("209", "did you mean GC20"),
        ("noise-redrawm", "did you mean noise-redrawn?"),
        ("GC2xx", "GC201, GC202"),
        ("elephants", "the codes are GC101"),
        ("", "the codes are GC101"),
        ("../GC101", "did you mean GC101?"),
    ],
)
def test_unknown_code_is_a_usage_error_with_a_hint(wrong: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        page(wrong)
    assert hint in error.value.hint


def test_family() -> None:
    assert family("GC202") == "GC2xx"
    assert {family(code)[2] for code in CODES} == set("123456789")
