"""gradcheck from Python: what `import gradcheck` costs, run as the command line's twin, and whose objects are whose."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import gradcheck
from gradcheck.catalog import load_backends
from gradcheck.cli import main
from gradcheck.errors import UsageError
from gradcheck.ownership import backend_of

FAKE = Path(__file__).parent / "wrong_on_purpose" / "fake_adapter.py"
CASE = """
name: model
step: step.py:step
steps: 3
dims: {n: 2}
sequences: {x: {shape: [n], init: normal}}
carry: {h: {shape: [n], init: zeros}}
parameters: {W: {shape: [n, n], init: glorot}}
objectives: {state: {of: h, reduce: sum, wrt: [W]}}
options: {fake: {fault: scaled}}
backends: [fake]
"""
STEP = "def step(xp, x, h, W):\n    return {'h': xp.tanh(x @ W + h)}\n"
MANIFEST = (
    'name = "fake"\nframework = "numpy"\npython = ">=3.9"\nrequires = ["numpy>=1.22"]\n[rollouts]\nfake = "unroll"\n'
)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The working directory: a case that fails on a backend of the project's own."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "backend.toml").write_text(MANIFEST + '[options.fault]\ndefault = ""\n')
    shutil.copy(FAKE, tmp_path / "fake" / "adapter.py")
    (tmp_path / "model.yaml").write_text(CASE)
    (tmp_path / "step.py").write_text(STEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- import -----------------------------------------------------------------------------------------------------------


def test_import_costs_nothing_and_names_what_there_is():
    heavy = ("numpy", "pydantic", "rich", "ruamel", "execnet", "psutil", "uv", "click", "junitparser")
    program = (
        "import sys, gradcheck\n"
        f"found = [name for name in {heavy!r} if name in sys.modules]\nassert not found, found\n"
        "assert {'run', 'check', 'assert_correct', 'Report', 'GradientError'} <= set(dir(gradcheck))\n"
        "filters = list(__import__('warnings').filters)\n"
        "import gradcheck.model, gradcheck.pipeline\nassert callable(gradcheck.check) and callable(gradcheck.run)\n"
        "added = [f for f in __import__('warnings').filters if f not in filters and 'numpy' not in str(f)]\n"
        "assert not added, added\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(AttributeError, match="no attribute 'chekc'"):
        gradcheck.chekc  # noqa: B018


# --- run --------------------------------------------------------------------------------------------------------------


def test_run_takes_what_the_command_line_takes():
    shown = {"json_file", "junit_file", "format_name", "color", "quiet", "verbose"}  # what is done with the report
    renamed = {"expression": "select", "folders": "backend_folders"}
    options = {renamed.get(p.name, p.name) for p in main.commands["run"].params if p.name not in shown}
    parameters = inspect.signature(gradcheck.run).parameters
    assert set(parameters) == options | {"progress"}
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name != "paths")
    undocumented = [name for name in parameters if not re.search(rf"\b{name}\b", gradcheck.run.__doc__ or "")]
    assert not undocumented


def test_run_gives_the_report_that_the_command_line_shows(project):
    lines: list[str] = []
    report = gradcheck.run("model.yaml", backend_folders=["fake"], progress=lines.append)
    assert isinstance(report, gradcheck.Report)
    assert (report.ok, report.exit_code, report.command) == (False, 1, "gradcheck.run")
    assert [(c.backend, c.objective, c.parameter) for c in report.checks] == [("fake", "state", "W")]
    assert [f.code for f in report.findings] == ["GC204"]
    assert lines == ["[1/1] model · fake"]
    printed = CliRunner().invoke(main, ["run", "model.yaml", "--backends", "fake"]).output
    assert timeless(str(report)) == timeless(printed.rstrip("\n"))
    assert str(report) == report.text(width=80)
    assert max(map(len, report.text(width=60).splitlines())) <= 60
    assert re.fullmatch(r"<Report: 1 case, 1 check: 0 passed, 1 failed in \S+ s>", repr(report))


def timeless(text: str) -> str:
    return re.sub(r"in \d+\.\d s", "in some time", text)


def test_a_notebook_shows_the_same_words_and_nothing_that_a_framework_slips_in(project):
    (project / "model.yaml").write_text(CASE.replace("name: model", "name: 'a<b>&c'"))
    report = gradcheck.run([Path("model.yaml")], backend_folders=["fake"], select="a<b")
    html = report._repr_html_()
    assert "a&lt;b&gt;&amp;c" in html
    words = re.sub(r"<[^>]+>", "", html)
    assert "error[GC204]: the gradient is 1.001 times the right one" in words
    assert html.count("<span") == html.count("</span>") > 10


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": 0}, "timeout has to be positive, not 0"),
        ({"rtol": -1.0}, "rtol has to be at least 0, not -1.0"),
        ({"order": 3}, "order has to be 1 or 2, not 3"),
        ({"backends": "jax-scna"}, "unknown backend 'jax-scna', did you mean 'jax-scan'?"),
        ({"python": {"jaxx": "p"}}, "unknown framework 'jaxx', did you mean 'jax'?"),
        ({"select": "a and"}, "cannot read 'a and'"),
    ],
)
def test_senseless_options_are_one_error(project, options, told):
    with pytest.raises(gradcheck.GradcheckError) as caught:
        gradcheck.run("model.yaml", **options)
    assert told in str(caught.value)


def test_a_broken_case_is_in_the_report(project):
    report = gradcheck.run(["nowhere.yaml"])
    assert (report.exit_code, [str(p) for p in report.problems]) == (2, ["nowhere.yaml: no such file or folder"])
    assert "nowhere.yaml: no such file or folder" in str(report)


@pytest.mark.backend
def test_a_model_of_autograd_is_a_native_case(project):
    (project / "native.yaml").write_text("name: native\nstep: {framework: numpy, build: native.py:build}\n")
    (project / "native.py").write_text(
        "import autograd.numpy as np\n"
        "def loss(p, x):\n    return np.sum(np.tanh(x @ p['layers'][0]) ** 2)\n"
        "def build():\n    return {'loss': loss, 'params': {'layers': [np.ones((3, 2)) / 3]}, 'args': [np.eye(3)]}\n"
    )
    report = gradcheck.run("native.yaml")
    assert report.ok, str(report)
    assert [(c.backend, c.parameter, c.verdict) for c in report.checks] == [("unroll", "layers[0]", "pass")]


# --- check, where there is no framework -------------------------------------------------------------------------------


def test_a_framework_that_this_process_lacks_is_one_clear_error():
    with pytest.raises(gradcheck.GradientError) as caught:
        gradcheck.assert_correct(lambda w: np.sum(w**2), np.ones(3))
    assert str(caught.value).startswith("this process cannot check a model of autograd")
    assert "it has no autograd, numpy needs autograd>=1.7" in str(caught.value)
    assert caught.value.report is None


# --- whose objects ----------------------------------------------------------------------------------------------------

NATIVES = list({b.name: b for b, _ in load_backends().values() if b.native}.values())


@pytest.mark.parametrize("backend", NATIVES, ids=lambda backend: backend.name)
def test_every_backend_of_native_models_can_check_in_process(backend):
    assert backend.owns
    assert "\ndef in_process(built):\n" in (backend.folder / "adapter.py").read_text()


def thing(module: str, base: type = object) -> Any:
    """An object whose type is defined in a module."""
    return type("Thing", (base,), {"__module__": module})()


@dataclass
class Module:
    weights: list[Any]


JAX, THEANO = thing("jaxlib._jax"), thing("theano.tensor.var")


@pytest.mark.parametrize(
    ("built", "name"),
    [
        ({"loss": len, "params": {"a": [JAX]}, "args": ()}, "jax"),
        ({"loss": len, "params": np.ones(2), "args": (1.0, JAX)}, "jax"),
        ({"loss": len, "params": Module([JAX]), "args": ()}, "jax"),
        ({"loss": partial(len, JAX), "params": np.ones(2), "args": ()}, "jax"),
        ({"loss": THEANO, "params": [], "args": ()}, "theano"),
        ({"loss": len, "params": thing("mine", type(JAX)), "args": ()}, "jax"),
        ({"costs": {"a": 1}, "inputs": {THEANO: np.ones(2)}}, "theano"),
        ({"loss": lambda p: JAX, "params": np.ones(2), "args": ()}, "jax"),
        ({"loss": lambda p: np.float64(1), "params": 1.0, "args": ()}, "numpy"),
        ({"loss": {"a": lambda p, x: x[0]}, "params": np.ones(2), "args": ([np.ones(1)],)}, "numpy"),
    ],
)
def test_the_framework_is_told_by_the_objects(built, name):
    assert backend_of(NATIVES, built, None).name == name


def test_a_structure_that_holds_itself_is_no_trap():
    ring: list[Any] = [JAX]
    ring.append(ring)
    assert backend_of(NATIVES, {"loss": len, "params": ring, "args": ()}, None).name == "jax"


@pytest.mark.parametrize(
    ("built", "framework", "told"),
    [
        ({"loss": len, "params": [JAX, THEANO]}, None, "the model holds objects of jax and of Theano-PyMC"),
        ({"loss": lambda p: "text", "params": 1.0}, None, "its loss is of type str"),
        ({"loss": lambda p: 1 / 0, "params": 1.0}, None, "the loss cannot be called as loss(params, *args)"),
        ({"step": 1, "params": 1.0}, None, "it holds no objects of any"),
        ({"loss": len, "params": JAX}, "thaeno", "unknown framework 'thaeno', did you mean 'theano'?"),
    ],
)
def test_what_cannot_be_told_is_one_error(built, framework, told):
    with pytest.raises(UsageError) as caught:
        backend_of(NATIVES, built, framework)
    assert told in str(caught.value)
