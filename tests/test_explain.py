"""Every runnable example of `gradcheck explain` gives its own code and no other, and its fix gives none."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradcheck.diagnosis.codes import CODES, page

BLOCK = re.compile(r"^```(\w+) ?([\w.]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = ("case.yaml", "step.py")
# codes that no portable case can give by itself: they need a faulty environment, framework or machine
ELSEWHERE = {"GC901": "tests/end_to_end", "GC904": "tests/wrong_on_purpose"}


def section(code: str, name: str) -> str:
    return page(code).split(f"## {name}\n")[1].split("\n## ")[0]


def example(code: str) -> dict[str, str]:
    return {name: text for _, name, text in BLOCK.findall(section(code, "Example")) if name in FILES}


def fixes(code: str) -> list[dict[str, str]]:
    """The example with each fix applied: whole files, or diffs. A paragraph that begins with "Or" begins another fix."""
    found = []
    for alternative in re.split(r"^Or\b", section(code, "Fix"), flags=re.MULTILINE):
        blocks = BLOCK.findall(alternative)
        files = example(code) | {name: text for _, name, text in blocks if name in FILES}
        for kind, _, text in blocks:
            if kind == "diff":
                files = {name: patched(content, text) for name, content in files.items()}
        if files != example(code):
            found.append(files)
    return found


def patched(content: str, diff: str) -> str:
    """A file with a diff's removed lines replaced by its added ones; added lines alone are YAML and go to its end."""
    old = "\n".join(line[1:] for line in diff.splitlines() if line.startswith("-"))
    new = "\n".join(line[1:] for line in diff.splitlines() if line.startswith("+"))
    if old:
        return content.replace(old, new)
    return f"{content}{new}\n" if content.startswith("name:") else content


RUNNABLE = [code for code in CODES if set(example(code)) == set(FILES)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, list[str]]:
    """Codes of all findings by case folder, from one run over every example and every fix."""
    root: Path = tmp_path_factory.mktemp("explain")
    for code in RUNNABLE:
        for number, files in enumerate([example(code), *fixes(code)]):
            folder = root / f"{code}-{number}"
            folder.mkdir()
            for name, text in files.items():
                (folder / name).write_text(text)
    command = [sys.executable, "-m", "gradcheck", "run", str(root), "--json", "-", "--timeout", "20"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    report = json.loads(ran.stdout)
    found = {Path(case["path"]).parent.name: [f["code"] for f in case["findings"]] for case in report["cases"]}
    for problem in report["problems"]:
        found.setdefault(Path(problem.split(":")[0]).parent.name, []).append(problem)
    return found


def test_every_code_has_a_runnable_example_or_says_why_not():
    assert {code for code in CODES if code not in RUNNABLE} == set(ELSEWHERE)


@pytest.mark.backend
@pytest.mark.parametrize("code", RUNNABLE)
def test_example_gives_its_code_and_no_other(code, outcomes):
    assert set(outcomes[f"{code}-0"]) == {code}


@pytest.mark.backend
@pytest.mark.parametrize(("code", "number"), [(c, n) for c in RUNNABLE for n in range(1, len(fixes(c)) + 1)])
def test_fix_gives_no_finding(code, number, outcomes):
    assert outcomes[f"{code}-{number}"] == []
