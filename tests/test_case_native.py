"""Native case files: what can be told without running a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradcheck import pipeline
from gradcheck._backends._worker import native
from gradcheck._backends._worker.problem import StepError
from gradcheck.case_file import CaseFileError, load
from gradcheck.catalog import load_backends
from gradcheck.pipeline import Settings, misfits, planned

STEP = "step: {framework: jax, build: model.py:build}\n"


def write(folder: Path, text: str, build: str = "def build():\n    return {}\n") -> Path:
    (folder / "model.py").write_text(build)
    (folder / "case.yaml").write_text(f"name: n\n{text}")
    return folder / "case.yaml"


def problems(folder: Path, text: str, build: str = "def build():\n    return {}\n") -> list[str]:
    catalog = load_backends()
    with pytest.raises(CaseFileError) as caught:
        load(write(folder, text, build), misfits=lambda case: misfits(case, catalog))
    return [f"{p.line}:{p.column}: {p.message}" for p in caught.value.places]


def test_a_native_case_knows_its_framework_and_nothing_of_its_model(tmp_path):
    case = load(write(tmp_path, STEP + "wrt: W_*\ndtype: float32\ntolerance: {rtol: 1e-5}\n"))
    assert (case.native, case.step_function, case.wrt, case.process_dtype) == ("jax", "build", ("W_*",), "float32")
    assert (case.inputs, case.objectives, case.rtol) == ((), (), 1e-5)


def test_it_runs_on_every_rollout_of_its_framework_whatever_the_default(tmp_path):
    plan = planned(load(write(tmp_path, STEP)), Settings(default_backends=("unroll",)), load_backends())
    assert plan.backends == ("jax-scan", "jax-unroll")
    assert plan.named
    assert not plan.wanted("jax-unroll")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("step: {framework: jaxx, build: model.py:build}\n", "2:19: unknown framework 'jaxx', did you mean 'jax'?"),
        ("step: {framework: caffe, build: model.py:build}\n", "2:19: unknown framework 'caffe' (there is jax, "),
        ("step: {framework: jax}\n", "2:1: missing key 'build'"),
        (
            "step: {framework: jax, build: model.py:build, scan: 1}\n",
            "2:47: unknown key 'scan'",
        ),
        ("step: {framework: jax, build: model.py}\n", "2:31: 'build' is written FILE.py:FUNCTION, not 'model.py'"),
        ("step: {framework: jax, build: model.py:make}\n", "2:31: no function 'make' in"),
        (STEP + "steps: 3\n", "3:1: 'steps' belongs to portable cases: a native model has its own"),
        (STEP + "parameters: {}\n", "3:1: 'parameters' belongs to portable cases: a native model has its own"),
        (STEP + "tolerence: {}\n", "3:1: unknown key 'tolerence', did you mean 'tolerance'?"),
        (STEP + "backends: [theano-scan]\n", "3:12: 'theano-scan' cannot run a model of jax"),
        (STEP + "wrt: []\n", "3:6: 'wrt' must not be empty"),
        (STEP + "options: {jaks: {}}\n", "3:11: unknown framework 'jaks', known: "),
    ],
)
def test_a_mistake_is_one_located_error(tmp_path, text, told):
    (line,) = problems(tmp_path, text)
    assert line.startswith(told)


def test_a_build_that_wants_arguments_is_told(tmp_path):
    (line,) = problems(tmp_path, STEP, "def build(seed):\n    return {}\n")
    assert line.startswith("2:31: build 'build'")
    assert line.endswith("requires 'seed', but is called without arguments")


ARRAYS = {"layers[0].w": np.ones(2), "layers[1].w": np.ones(2), "encoder.W": np.ones(2), "count": np.ones(2, int)}


class TestNames:
    def test_without_a_pattern_every_float_is_chosen(self):
        assert native.selected((), ARRAYS) == {"layers[0].w", "layers[1].w", "encoder.W"}

    @pytest.mark.parametrize(
        ("pattern", "chosen"),
        [
            ("layers[0].w", {"layers[0].w"}),
            ("layers[*].w", {"layers[0].w", "layers[1].w"}),
            ("encoder.*", {"encoder.W"}),
            ("*", {"layers[0].w", "layers[1].w", "encoder.W"}),
            ("count", {"count"}),
        ],
    )
    def test_brackets_are_part_of_a_name_and_globs_match_floats_alone(self, pattern, chosen):
        assert native.selected((pattern,), ARRAYS) == chosen

    def test_a_pattern_without_a_match_is_an_error(self):
        with pytest.raises(StepError, match="no parameter matches 'W'; the model has 'layers"):
            native.selected(("W",), ARRAYS)

    def test_two_of_a_name_are_an_error(self):
        with pytest.raises(StepError, match="two parameters are called 'a'"):
            native.unique([("a", 1), ("a", 2)])


@pytest.mark.backend
def test_an_expectation_that_names_what_the_model_does_not_have_is_told(tmp_path):
    (tmp_path / "model.py").write_text(
        "def build():\n    return {'loss': lambda p: p['w'] ** 2, 'params': {'w': 2.0}}\n"
    )
    (tmp_path / "case.yaml").write_text(
        "name: model\nstep: {framework: jax, build: model.py:build}\n"
        "expect: [{parameter: v, code: GC201, reason: a typo}, {objective: los, code: GC201, reason: another}]\n"
    )
    report = pipeline.run([tmp_path / "case.yaml"], pipeline.Settings())
    assert report.exit_code == 1
    assert [f.code for f in report.cases[0].findings] == ["GC801", "GC801"]
    assert [f.because for f in report.cases[0].findings] == [
        "the model has no parameter 'v' (there is w)",
        "the model has no objective 'los', did you mean 'loss'?",
    ]
