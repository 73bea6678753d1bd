"""gradcheck as users get it: the built wheel in a fresh environment, and the README's words as they stand."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRACKED = ("gradcheck", "backends", "cases", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.backend


def copy_of_project(target: Path) -> Path:
    """The files that a clone has, without what a working tree collects."""
    target.mkdir()
    for name in TRACKED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target / name)
    return target


def command_after(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has no command marked {marker}"
    return found[1].strip()


def run(command: list[str] | str, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    # base Python first on PATH: `python3 -m venv` must not make an environment of the one that runs the tests
    path = f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"} | {"PATH": path} | extra
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        shell=isinstance(command, str),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    project = copy_of_project(tmp_path_factory.mktemp("build") / "project")
    built = run([sys.executable, "-m", "build", "--wheel", "--outdir", "dist", "."], project)
    assert built.returncode == 0, built.stdout + built.stderr
    return next((project / "dist").glob("*.whl"))


def test_wheel_has_backends_and_cases_and_nothing_at_the_top(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "[pytest11]\ngradcheck = gradcheck.pytest_plugin" in points
    assert "gradcheck/_backends/theano/backend.toml" in names
    assert "gradcheck/_backends/_worker/serve.py" in names
    assert "gradcheck/_backends/jax/requirements.txt" in names
    assert "gradcheck/_cases/rnn_vae.yaml" in names
    assert "gradcheck/diagnosis/pages/GC202.md" in names
    assert "gradcheck/pytest_plugin.py" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"gradcheck"}
    assert not [name for name in names if "__pycache__" in name]


def test_wheel_works_from_an_empty_folder(wheel, tmp_path):
    """A fresh environment, a case from `init`, a run as a process."""
    environment = tmp_path / "environment"
    assert run([sys.executable, "-m", "venv", str(environment)], tmp_path).returncode == 0
    installed = run([str(environment / "bin" / "pip"), "install", "-q", str(wheel)], tmp_path)
    assert installed.returncode == 0, installed.stderr
    work = tmp_path / "work"
    work.mkdir()
    gradcheck = str(environment / "bin" / "gradcheck")
    assert run([gradcheck, "init", "mine"], work).returncode == 0
    ran = run([gradcheck, "run", "mine.yaml", "-b", "unroll"], work)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "18 passed" in ran.stdout
    assert run([gradcheck, "explain", "GC202"], work).stdout.startswith("# GC202")
    program = "import gradcheck; print(gradcheck.run('mine.yaml', backends=['unroll']).ok, gradcheck.check.__name__)"
    assert run([str(environment / "bin" / "python"), "-c", program], work).stdout == "True check\n"


def test_readme_command_runs_the_main_case(tmp_path):
    """Exactly as written, in a copy of the project: it makes an environment, installs and runs."""
    project = copy_of_project(tmp_path / "project")
    ran = run(command_after("try"), project)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 case, 90 checks: 90 passed" in ran.stdout


def test_readme_test_command_is_what_ci_runs():
    """.ci/run reads the command from README.md; this holds the marker that it looks for."""
    assert command_after("test").endswith("-m pytest -q -n 2 --dist loadfile")
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_readme_case_of_your_own(tmp_path):
    """The cases that the README writes by hand pass on every backend."""
    for name in ("decay.py", "decay.yaml", "leaky.yaml"):
        found = re.search(rf"```\w+ {re.escape(name)}\n(.*?)```", README, re.DOTALL)
        assert found, f"README.md has no block {name}"
        (tmp_path / name).write_text(found[1])
    ran = run([sys.executable, "-m", "gradcheck", "run", "decay.yaml", "leaky.yaml"], tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "45 checks: 45 passed" in ran.stdout


def test_readme_mentions_every_command_and_exit_code():
    from gradcheck.cli import main
    from gradcheck.reports._shared import EXIT_MEANING

    for name in main.commands:
        assert f"`gradcheck {name}" in README
    for code in EXIT_MEANING:
        assert f"| {code} |" in README
