"""The changes that a finding proposes: each is a diff that was tried, and a user who applies it gets rid of the finding."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradcheck import pipeline
from gradcheck.diagnosis import changes

pytestmark = pytest.mark.backend

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "tests" / "cases" / "native"
STEP = """\
def step(xp, x, h, W):
    kept = xp.stop_gradient(x @ W) + h
    return {"h": xp.tanh(kept)}


def spread(xp, x, h, W):
    y = xp.where(x > 0.0, xp.sqrt(x) * 0.5, xp.sin(x))
    return {"h": 0.5 * h + y @ W}


def shared(xp, x, h, W, eps):
    return {"h": xp.tanh(x @ W + h) + 0.1 * eps}
"""
HEAD = """\
step: step.py:{step}
steps: 4
dims: {{b: 2, n: 3}}
sequences: {{x: {{shape: [b, n], init: normal}}}}
carry: {{h: {{shape: [b, n], init: normal}}}}
parameters: {{W: {{shape: [n, n], init: glorot}}}}
objectives: {{h: {{of: h, reduce: sum, wrt: [{wrt}]}}}}
backends: [{backend}]
{more}name: {step}-{backend}
"""
NOISE = "noise:\n  eps:\n    shape: [b, n]\n    draw: normal\n    placement: non_sequence\n"
PORTABLE = [("step", "W", "unroll", ""), ("spread", "x", "jax-unroll", ""), ("shared", "W", "unroll", NOISE)]
BORROWED = ("jax_where_sqrt", "jax_custom_vjp_sign", "theano_truncated")
CODES = {
    "step-unroll": "GC205", "spread-jax-unroll": "GC301", "shared-unroll": "GC701", "jax-where-sqrt": "GC301",
    "jax-custom-vjp-sign": "GC206", "theano-truncated": "GC203",
}  # fmt: skip


def run(folder):
    command = [sys.executable, "-m", "gradcheck", "run", ".", "--json", "-"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    return {case["name"]: case for case in json.loads(ran.stdout)["cases"]}


def apply(folder, change):
    """Make a change as a user would who reads it from the report."""
    path = folder / change["file"]
    rows = path.read_text().splitlines()
    at = change["line"] - 1
    for row in change["diff"].splitlines():
        if row[0] == "-":
            at = rows.index(row[1:], at)
            del rows[at]
        else:
            rows.insert(at, row[1:])
            at += 1
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def before_and_after(tmp_path_factory):
    folder = tmp_path_factory.mktemp("changes")
    for name in BORROWED:
        for suffix in (".py", ".yaml"):
            shutil.copy(NATIVE / f"{name}{suffix}", folder)
    for step, wrt, backend, more in PORTABLE:
        own = folder / step
        own.mkdir()
        (own / "step.py").write_text(STEP)
        (own / f"{step}.yaml").write_text(HEAD.format(step=step, wrt=wrt, backend=backend, more=more))
    before = run(folder)
    for case in before.values():
        for finding in case["findings"]:
            if finding["change"]:
                apply(folder, finding["change"])
    return before, run(folder)


@pytest.mark.parametrize("name", CODES)
def test_the_change_that_is_shown_takes_the_finding_away(name, before_and_after):
    before, after = before_and_after
    (finding,) = before[name]["findings"]
    assert finding["code"] == CODES[name]
    assert "pass" in finding["change"]["tried"]
    assert after[name]["findings"] == []
    assert {check["verdict"] for check in after[name]["checks"]} == {"pass"}


def test_a_change_that_does_not_help_is_not_shown(tmp_path, monkeypatch):
    (tmp_path / "step.py").write_text(STEP)
    (tmp_path / "case.yaml").write_text(HEAD.format(step="step", wrt="W", backend="unroll", more=""))
    monkeypatch.chdir(tmp_path)

    def useless(scene, checks, found):
        text = scene.case.step_file.read_text()
        yield changes.Draft(scene.case.step_file, text, text + "# nothing\n")
        yield changes.Draft(scene.case.step_file, text, "def step(:\n")
        yield changes.Draft(scene.case.path, text, "name: [\n")

    monkeypatch.setitem(changes.MAKERS, "GC205", useless)
    (finding,) = pipeline.run([Path("case.yaml")], pipeline.Settings()).cases[0].findings
    assert finding.code == "GC205"
    assert finding.change is None
