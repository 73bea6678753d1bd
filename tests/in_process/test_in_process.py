"""gradcheck.check in the process of a real framework: environments as a user makes them, `pip install gradcheck[jax]`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

from gradcheck.uv_tool import pip_settings, uv_settings

pytestmark = pytest.mark.backend

ROOT = Path(__file__).parents[2]
MODELS = Path(__file__).parent / "models"


def environment_with(extras: str, folder: Path) -> Path:
    """The interpreter of a new environment with gradcheck, its extras and pytest."""
    variables, flags = uv_settings(pip_settings(Path(sys.executable)), os.environ)
    environ = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"} | variables
    python = folder / "bin" / "python"
    for command in (
        ["venv", "--python", sys.executable, str(folder)],
        ["pip", "install", "--python", str(python), *flags, "-e", f"{ROOT}[{extras}]", "pytest>=8"],
    ):
        done = subprocess.run([find_uv_bin(), *command], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return python


def run(python: Path, models: str, *options: str, **environ: str) -> None:
    """Run the tests in a file of `models` there; they are shown if they fail. Warnings are errors, so that none is new."""
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *options, models]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=MODELS, env=clean | environ, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.fixture(scope="module")
def jax_and_autograd(tmp_path_factory) -> Path:
    return environment_with("jax,numpy", tmp_path_factory.mktemp("jax") / "environment")


def test_jax(jax_and_autograd):
    run(jax_and_autograd, "jax_models.py")


def test_the_readme(jax_and_autograd, tmp_path):
    """What it writes runs as it stands."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## From Python and pytest")[2]
    for label, command in (("python", []), ("python test_model.py", ["-m", "pytest", "-q"])):
        block = re.search(rf"```{re.escape(label)}\n(.*?)```", section, re.DOTALL)
        assert block, f"README.md has no block {label}"
        file = tmp_path / "test_model.py"
        file.write_text(block[1])
        done = subprocess.run(
            [str(jax_and_autograd), *command, str(file)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed in " in done.stdout


def test_autograd(jax_and_autograd):
    run(jax_and_autograd, "autograd_models.py")


def test_pytensor(tmp_path):
    """In FAST_COMPILE: its own default compiles by numba, for minutes."""
    python = environment_with("pytensor", tmp_path / "environment")
    warned = "ignore::FutureWarning"
    run(
        python,
        "pytensor_models.py",
        "-W",
        warned,
        PYTENSOR_FLAGS="cxx=,mode=FAST_COMPILE,base_compiledir=" + str(tmp_path),
    )


def test_torch(tmp_path):
    run(environment_with("torch", tmp_path / "environment"), "torch_models.py")


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="Theano-PyMC has no Python that gradcheck itself runs on but 3.11"
)
def test_theano(tmp_path):
    python = environment_with("theano", tmp_path / "environment")
    flags = f"cxx=,blas__ldflags=,mode=FAST_COMPILE,base_compiledir={tmp_path}"
    run(python, "theano_models.py", "-W", "ignore::DeprecationWarning", THEANO_FLAGS=flags)  # of its import
