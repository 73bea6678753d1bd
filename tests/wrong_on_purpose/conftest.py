"""Backends that are wrong on purpose, a small case for them, and ways to run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from gradcheck.model import Report
from gradcheck.pipeline import Settings, run
from gradcheck.workers import Limits

HERE = Path(__file__).parent
FAKES = ("fake", "other", "third")

MANIFEST = """
name = "{name}"
framework = "numpy"
python = ">=3.9"
requires = ["numpy>=1.22"]      # the running interpreter serves: nothing is built

[rollouts]
{name} = "unroll"
{name}-scan = "scan"

[options.fault]
default = ""
"""

CASE = """
name: {name}
step: rnn.py:{step}
steps: 5
dims: {{batch: 2, input: 3, hidden: 4}}
sequences: {{x: {{shape: [batch, input], init: normal}}}}
carry: {{h: {{shape: [batch, hidden], init: zeros}}}}
parameters:
{parameters}
constants: {{scale: {{shape: [], init: {{value: {scale}}}}}}}
objectives:
{objectives}
options: {options}
expect: {expect}
"""

STEP = '''
"""A tanh RNN with a read-out."""


def rnn(xp, x, h, W_x, W_h, b, W_o, scale, **others):
    h = xp.tanh(x @ W_x + h @ W_h + b)
    return {"h": h, "scaled": scale * h, "out": scale * (h @ W_o) ** 2}


def raises(xp, x, h, W_x, **others):
    if True:
        raise ValueError("the step does not like its weights")
'''

PARAMETERS = {
    "W_x": "{shape: [input, hidden], init: glorot}",
    "W_h": "{shape: [hidden, hidden], init: glorot}",
    "b": "{shape: [hidden], init: {normal: 0.1}}",
    "W_o": "{shape: [hidden, input], init: glorot}",
}
OBJECTIVES = {
    "hidden": "{of: scaled, reduce: sum, wrt: [W_x, W_h, b]}",
    "out": "{of: out, reduce: mean, wrt: [W_x, W_o, x]}",
}


class Bench:
    """A folder with the fake backends and the cases that a test asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backends = folder / "backends"
        for name in FAKES:
            (self.backends / name).mkdir(parents=True)
            (self.backends / name / "backend.toml").write_text(MANIFEST.format(name=name))
            shutil.copy(HERE / "fake_adapter.py", self.backends / name / "adapter.py")
            shutil.copy(HERE / "fake_ops.py", self.backends / name)
        (folder / "rnn.py").write_text(STEP)

    def case(
        self,
        faults: str | Mapping[str, str] = "",
        *,
        name: str = "rnn",
        step: str = "rnn",
        scale: float = 1.0,
        expect: str = "[]",
        parameters: Mapping[str, str] = PARAMETERS,
        objectives: Mapping[str, str] = OBJECTIVES,
    ) -> Path:
        """Write a case. faults: backend -> fault, or that of `fake`."""
        chosen = {"fake": faults} if isinstance(faults, str) else faults
        path = self.folder / f"{name}.yaml"
        lines = ("\n".join(f"  {key}: {text}" for key, text in section.items()) for section in (parameters, objectives))
        parameter_lines, objective_lines = lines
        options = json.dumps({backend: {"fault": fault} for backend, fault in chosen.items() if fault})
        path.write_text(
            CASE.format(
                name=name, step=step, scale=scale, parameters=parameter_lines, objectives=objective_lines,
                options=options, expect=expect,
            )
        )  # fmt: skip
        return path

    def run(
        self,
        *cases: Path,
        backends: tuple[str, ...] = ("fake",),
        timeout: float = 60,
        memory: float | None = None,
        **more,
    ) -> Report:
        settings = Settings(
            backends=backends,
            default_backends=backends,
            extra_backends=(self.backends,),
            limits=Limits(timeout, memory),
            **more,
        )
        return run(cases, settings)

    def verdicts(self, *faults: str | Mapping[str, str], **more) -> Report:
        return self.run(self.case(*faults), **more)

    def cli(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`gradcheck run` on the fakes, as a process."""
        command = [
            str(Path(sys.executable).with_name("gradcheck")),
            "run",
            "--backends",
            str(self.backends),
            *map(str, arguments),
        ]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=100, env=dict(os.environ)
        )


@pytest.fixture
def bench(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Bench:
    temporary = str(tmp_path_factory.mktemp("tmp"))  # where the logs of failed workers are kept
    monkeypatch.setattr("tempfile.tempdir", temporary)
    monkeypatch.setenv("TMPDIR", temporary)
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One for a whole module, for properties that run many examples."""
    return Bench(tmp_path_factory.mktemp("bench"))
