"""What an adapter answers, asked directly, on every backend; and settings of a whole process: Theano's."""

from __future__ import annotations

import shutil

import pytest

from gradcheck.catalog import load_backends
from gradcheck.contract.operations import PLAIN, SCENARIOS, STEP
from gradcheck.model import Verdict

pytestmark = pytest.mark.backend

CATALOG = load_backends()
ROLLOUTS = list(CATALOG)
if not ROLLOUTS:
    raise RuntimeError("nothing to test: no backend was found")


@pytest.mark.parametrize(
    ("scenario", "rollout"),
    [(scenario, rollout) for scenario in SCENARIOS for rollout in ROLLOUTS if scenario.concerns(rollout, CATALOG)],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_contract(bench, scenario, rollout):
    scenario.run(bench, rollout)


# --- settings of a whole process: Theano's ----------------------------------------------------------------------------

THEANO = [name for name, (backend, _) in CATALOG.items() if backend.name == "theano"]
SMALL = """
step: step.py:small
steps: 3
sequences: {x: {shape: [2], init: normal}}
carry: {h: {shape: [2], init: {normal: 0.5}}}
parameters: {w: {shape: [2], init: {value: 0.7}}}
objectives: {hidden: {of: h, wrt: [w, x, h]}}
"""
SMALL_STEP = "def small(xp, x, h, w):\n    return {'h': h * w + x}\n"


def assert_all_pass(result):
    assert result.error is None, f"{result.error} {result.error.context}"
    assert {evidence.check.verdict for evidence in result.checks} == {Verdict.PASS}


@pytest.mark.parametrize("mode", CATALOG["theano-scan"][0].options["mode"].choices)
@pytest.mark.parametrize("rollout", THEANO)
def test_every_mode_of_theano(bench, rollout, mode):
    case = bench.case(f"mode-{mode}", f"{PLAIN}options: {{theano: {{mode: {mode}}}}}\n", step=STEP)
    assert_all_pass(bench.examined(case, rollout, beside=THEANO))


@pytest.mark.parametrize("linker", CATALOG["theano-scan"][0].options["linker"].choices)
@pytest.mark.parametrize("rollout", THEANO)
def test_every_linker_of_theano_works_or_says_why_not(bench, rollout, linker):
    """Only `py` works everywhere. The others need a C++ compiler, and for a scan a Python before 3.11 (its C code is older)."""
    folder = f"linker-{linker.replace('|', '-')}"
    case = bench.case(folder, f'{SMALL}options: {{theano: {{linker: "{linker}"}}}}\n', step=SMALL_STEP)
    result = bench.examined(case, rollout, beside=THEANO)
    if linker == "py" or result.error is None:
        assert_all_pass(result)
    elif shutil.which("g++") is None:
        assert (result.error.code, "needs a C++ compiler" in result.error.message) == ("GC901", True)
    else:
        assert result.error.code == "GC905"
        assert "linker: py" in result.error.message
        assert "\n" not in result.error.message
