"""`--self-test` plants errors and says which would be seen: all, at and above the stated limit; and it says what would not."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.backend

STEP = """\
def step(xp, x, h, W, U):
    h = xp.tanh(x @ W + h @ U)
    return {"h": h, "shifted": h + 1.0e8}
"""
CASE = """\
name: {name}
step: steps.py:step
steps: 6
dims: {{b: 3, n: 5}}
sequences: {{x: {{shape: [b, n], init: normal}}}}
carry: {{h: {{shape: [b, n], init: zeros}}}}
parameters: {{W: {{shape: [n, n], init: glorot}}, U: {{shape: [n, n], init: glorot}}}}
objectives: {{loss: {{of: {of}, reduce: sum, wrt: [W, U]}}}}
backends: [jax-scan]
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("self-test")
    (folder / "steps.py").write_text(STEP)
    for name, of in (("plain", "h"), ("offset", "shifted")):
        (folder / f"{name}.yaml").write_text(CASE.format(name=name, of=of))
    command = [sys.executable, "-m", "gradcheck", "run", ".", "--self-test", "--json", "report.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    report = json.loads((folder / "report.json").read_text())
    return done, {case["name"]: {row["kind"]: row for row in case["self_test"]} for case in report["cases"]}


def test_every_planted_error_is_seen_on_a_plain_case(ran):
    done, cases = ran
    assert done.returncode == 0
    assert set(cases["plain"]) == {
        "one entry x1.01", "whole tensor x1.001", "wrong sign", "zeroed", "transposed", "one time step dropped",
        "one entry, at the stated limit",
    }  # fmt: skip
    assert all(row["planted"] == row["seen"] == 2 and row["missed"] == [] for row in cases["plain"].values())
    assert "one entry x1.01                2 of 2 seen" in done.stdout


def test_the_stated_limit_is_honest_where_rounding_hides_much(ran):
    """An offset of 1e8 hides small errors: those are missed and named, and one at the limit is seen all the same."""
    _, cases = ran
    rows = cases["offset"]
    assert rows["one entry, at the stated limit"]["seen"] == rows["one entry, at the stated limit"]["planted"] == 2
    assert rows["wrong sign"]["seen"] == 2
    assert rows["one time step dropped"]["seen"] == 2
    assert rows["one entry x1.01"]["seen"] + len(rows["one entry x1.01"]["missed"]) == 2
