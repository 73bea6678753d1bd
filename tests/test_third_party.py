"""A backend of somebody else's, by the four steps of backends/README.md as they stand there, installed as a distribution."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradcheck.catalog import read_manifest
from gradcheck.contract import battery

ROOT = Path(__file__).parents[1]
README = (ROOT / "backends" / "README.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
COMMANDS = re.search(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)[1].splitlines()

FRAMEWORK = """
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "toygrad"
version = "1.2"

[tool.setuptools]
py-modules = ["toygrad"]
"""


def installed(project: Path, site: Path) -> Path:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture(scope="module")
def framework(tmp_path_factory) -> Path:
    """Where toygrad is installed."""
    folder = tmp_path_factory.mktemp("framework")
    (folder / "pyproject.toml").write_text(FRAMEWORK)
    shutil.copy(ROOT / "tests" / "third_party" / "toygrad.py", folder)
    return installed(folder, folder / "site")


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory) -> Path:
    """A folder with what the README says to write."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name, text in BLOCKS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(command: str, cwd: Path, *sites: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    assert program == "gradcheck"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sites))}
    gradcheck = str(Path(sys.executable).with_name("gradcheck"))
    done = subprocess.run(
        [gradcheck, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def test_the_readme_has_the_files_and_commands_of_four_steps():
    assert set(BLOCKS) == {"toy/backend.toml", "toy/xp.py", "toy/adapter.py", "case.yaml", "pyproject.toml"}
    assert len(COMMANDS) == 2
    assert re.findall(r"^## (\d)\. ", README, re.MULTILINE) == ["1", "2", "3", "4"]


def test_the_steps_lead_to_a_backend_that_keeps_the_contract(newcomer, framework):
    contract, case = COMMANDS
    done = run(contract, newcomer, framework)
    assert done.returncode == 0, done.stdout
    holds, lacks = re.search(r"^toy: (\d+) hold, 0 do not, (\d+) left out", done.stdout, re.MULTILINE).groups()
    backend = read_manifest(newcomer / "toy")
    asked = [s for s in battery(backend.xp) if s.concerns("toy-unroll", {"toy-unroll": (backend, "unroll")})]
    assert int(holds) + int(lacks) == len(asked)
    assert int(holds) > 60
    assert "left out  lengths-mask: every gradient passes\n            it needs where\n" in done.stdout
    done = run(case, newcomer, framework)
    assert done.returncode == 0, done.stdout
    assert "toy-unroll" in done.stdout


def test_what_does_not_hold_is_said_and_the_rest_too(newcomer, framework, tmp_path):
    """A gradient that is a thousandth too large, a cotangent that is dropped, draws in another form."""
    done = run("gradcheck doctor --contract toy", changed(newcomer, tmp_path, **{
        '"ok", np.asarray(g,': '"ok", np.asarray(1.001 * g,',
        "cotangent)\n            answers": "1.0)\n            answers",
        "np.stack([step[": "float('nan') and np.sum([step[",
    }), framework)  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert re.search(r"BROKEN    many-steps: every gradient passes\n +d hidden / d W: mismatch GC", done.stdout)
    assert "BROKEN    gradients from another cotangent are that many times the gradients\n" in done.stdout
    assert "BROKEN    draws are fresh at every step" in done.stdout
    assert "holds     many-steps: values are those of a plain loop\n" in done.stdout


def test_a_backend_that_cannot_start_is_neither(newcomer, framework, tmp_path):
    folder = changed(newcomer, tmp_path, **{"    import toygrad\n": "    import no_such_framework\n"})
    done = run("gradcheck doctor --contract toy", folder, framework)
    assert done.returncode == 3
    assert "cannot be run: ModuleNotFoundError: No module named 'no_such_framework'" in done.stdout


def changed(newcomer: Path, target: Path, **changes: str) -> Path:
    shutil.copytree(newcomer / "toy", target / "toy")
    adapter = target / "toy" / "adapter.py"
    text = adapter.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    adapter.write_text(text)
    return target


def test_only_what_is_in_the_folder_is_looked_at(newcomer, framework):
    done = run("gradcheck doctor jax --contract toy", newcomer, framework)
    assert (done.returncode, "unknown backend 'jax' (there is toy)" in done.stderr) == (2, True)


def test_a_folder_without_a_manifest_is_a_usage_error(tmp_path):
    done = run("gradcheck doctor --contract .", tmp_path)
    assert done.returncode == 2
    assert "no backend in" in done.stderr


def test_an_installed_distribution_is_found_by_its_entry_point(newcomer, framework, tmp_path):
    site = installed(newcomer, tmp_path / "site")
    listed = run("gradcheck list backends", tmp_path, framework, site)
    assert re.search(r"^toy-unroll +unroll +toygrad 1\.2 ", listed.stdout, re.MULTILINE), listed.stdout
    shutil.copy(newcomer / "case.yaml", tmp_path)
    done = run("gradcheck run case.yaml -b toy-unroll", tmp_path, framework, site)
    assert done.returncode == 0, done.stdout + done.stderr
    unknown = run("gradcheck run case.yaml -b toy-unroll", tmp_path, framework)
    assert unknown.returncode == 2
