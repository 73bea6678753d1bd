"""gradcheck as a user runs it: a process, in a folder that holds nothing but the user's own files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

GRADCHECK = str(Path(sys.executable).with_name("gradcheck"))

CASE = """\
name: {name}
step: {name}.py:step
steps: 4
dims: {{batch: 2, input: 3, hidden: 4}}
sequences:
  x: {{shape: [batch, input], init: normal}}
carry:
  h: {{shape: [batch, hidden], init: zeros}}
parameters:
  W_x: {{shape: [input, hidden], init: glorot}}
  W_h: {{shape: [hidden, hidden], init: glorot}}
objectives:
  state: {{of: h, reduce: sum, wrt: [W_x, W_h]}}
{more}
"""

STEP = """\
import os
import sys
import time


def step(xp, x, h, W_x, W_h):
    h = xp.tanh(x @ W_x + h @ W_h)
    {line}
    return {{"h": h}}
"""


def heed_interrupts() -> None:
    """A shell that starts the tests in the background leaves SIGINT ignored, and whoever inherits that cannot be interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Workplace:
    """A folder to work in, and the command."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder, self.temporary = folder, temporary
        self.environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
        self.environ["TMPDIR"] = str(temporary)  # where the logs of failed workers are kept

    def case(self, name: str = "model", line: str = "", *, more: str = "", step: str | None = None) -> str:
        """Write a case and its step, with a line of the user's before the return; gives the case file's name."""
        (self.folder / f"{name}.yaml").write_text(CASE.format(name=name, more=more))
        (self.folder / f"{name}.py").write_text(STEP.format(line=line or "pass") if step is None else step)
        return f"{name}.yaml"

    def start(self, *arguments: object, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [GRADCHECK, *map(str, arguments)], cwd=self.folder, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**self.environ, **environ}, start_new_session=True,
            preexec_fn=heed_interrupts,
        )  # fmt: skip

    def __call__(self, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run gradcheck to its end. No run may ever show a traceback."""
        process = self.start(*arguments, **environ)
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
        assert "Traceback" not in out + err, out + err
        assert "internal error" not in err, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def gradcheck(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path, tmp_path_factory.mktemp("tmp"))


@pytest.fixture
def fake_backends(tmp_path: Path) -> Path:
    """A folder with one healthy backend in plain numpy, `fake`, served by the running interpreter."""
    source = Path(__file__).parents[1] / "wrong_on_purpose" / "fake_adapter.py"
    folder = tmp_path / "backends" / "fake"
    folder.mkdir(parents=True)
    shutil.copy(source, folder / "adapter.py")
    (folder / "backend.toml").write_text(
        'name = "fake"\nframework = "numpy"\npython = ">=3.9"\nrequires = ["numpy>=1.22"]\n'
        '[rollouts]\nfake = "unroll"\n[options.fault]\ndefault = ""\n'
    )
    return folder
