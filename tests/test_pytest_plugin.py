"""The pytest plugin as a user has it: in a project and a process of its own, on backends that are wrong on purpose."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FAKE = Path(__file__).parent / "wrong_on_purpose" / "fake_adapter.py"
MANIFEST = """
name = "{name}"
framework = "numpy"
python = "{python}"
requires = ["numpy>=1.22"]      # the running interpreter serves: nothing is built
[rollouts]
{name} = "unroll"
{name}-scan = "scan"
[options.fault]
default = ""
"""
CASE = """
name: {name}
step: step.py:{step}
steps: 3
dims: {{n: 2}}
sequences: {{x: {{shape: [n], init: normal}}}}
carry: {{h: {{shape: [n], init: zeros}}}}
parameters: {{W: {{shape: [n, n], init: glorot}}, b: {{shape: [n], init: zeros}}}}
objectives: {{state: {{of: h, reduce: sum, wrt: [W, b]}}}}
{more}
"""
STEP = """
import os

def step(xp, x, h, W, b):
    {line}
    return {{"h": xp.tanh(x @ W + h + b)}}

def kinked(xp, x, h, W, b):
    return {{"h": xp.tanh(x @ W + h) + xp.where(b > 0, b, 0.5 * b)}}
"""
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
INI = re.search(r"```toml pyproject.toml\n(.*?)```", README, re.DOTALL)[1]  # cases/ and models/**/*.case.yaml
PROJECT = f"""
{INI}
[tool.gradcheck]
backend_folders = ["backends"]
backends = ["fake", "fake-scan"]
"""
FAULT = "options: {{fake: {{fault: {}}}}}"


class Project:
    """A folder with case files, and pytest in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "cases").mkdir()
        self.backend("fake")

    def backend(self, name: str, python: str = ">=3.9") -> None:
        (self.folder / "backends" / name).mkdir(parents=True)
        (self.folder / "backends" / name / "backend.toml").write_text(MANIFEST.format(name=name, python=python))
        shutil.copy(FAKE, self.folder / "backends" / name / "adapter.py")

    def case(self, name: str, more: str = "", *, step: str = "step", line: str = "pass", folder: str = "cases") -> None:
        (self.folder / folder).mkdir(exist_ok=True)
        (self.folder / folder / f"{name}.yaml").write_text(CASE.format(name=name, step=step, more=more))
        (self.folder / folder / "step.py").write_text(STEP.format(line=line))

    def pytest(self, *arguments: str) -> tuple[int, str]:
        """(exit code, what it printed). No run may show a traceback."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))} | {"COLUMNS": "100"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:syrupy", *arguments],
            cwd=self.folder, capture_output=True, text=True, timeout=120, env=environ, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        assert "pytest_plugin.py:" not in re.sub(r"SKIPPED.*", "", said), said
        return done.returncode, said


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def outcomes(said: str) -> dict[str, str]:
    """What became of each item, from the lines of -v."""
    return dict(re.findall(r"^(\S+::\S+) (PASSED|FAILED|SKIPPED|ERROR)", said, re.MULTILINE))


def test_an_item_for_each_case_and_backend_whose_failure_is_the_diagnosis(project):
    project.case("right")
    project.case("wrong", FAULT.format("scaled@scan"))
    code, said = project.pytest("-v")
    assert outcomes(said) == {
        "cases/right.yaml::fake": "PASSED",
        "cases/right.yaml::fake-scan": "PASSED",
        "cases/wrong.yaml::fake": "PASSED",
        "cases/wrong.yaml::fake-scan": "FAILED",
    }
    assert code == 1
    report = said.partition("= FAILURES =")[2]
    # the rollouts of a framework are compared: else this would be GC204, a factor
    assert "error[GC208]: the scan's gradient is wrong" in report
    assert re.search(r"unrolled +\S+ +right by its own differences", report)
    assert "--> cases/wrong.yaml · fake-scan · d state / d W, b" in report
    assert "rerun: gradcheck run cases/wrong.yaml -b fake-scan" in report
    assert "FAILED cases/wrong.yaml::fake-scan - error[GC208]" in said
    assert outcomes(project.pytest("-v", "--lf")[1]) == {"cases/wrong.yaml::fake-scan": "FAILED"}
    chosen = project.pytest("-v", "-k", "wrong and not scan", "cases/wrong.yaml")[1]
    assert outcomes(chosen) == {"cases/wrong.yaml::fake": "PASSED"}


def test_yaml_of_others_is_left_alone(project):
    project.case("mine", folder="models")
    (project.folder / "models" / "mine.yaml").rename(project.folder / "models" / "mine.case.yaml")
    for name in ("docker-compose.yml", "models/openapi.yaml"):
        (project.folder / name).write_text("name: not a case\nservices: [\n")
    code, said = project.pytest("-v")
    assert outcomes(said) == {"models/mine.case.yaml::fake": "PASSED", "models/mine.case.yaml::fake-scan": "PASSED"}
    assert code == 0
    assert "not found" in project.pytest("docker-compose.yml")[1]
    project.case("elsewhere", "backends: [fake]", folder="other")  # is no case until it is named
    assert outcomes(project.pytest("-v", "other", "models")[1]) == outcomes(said)
    assert outcomes(project.pytest("-v", "other/elsewhere.yaml")[1]) == {"other/elsewhere.yaml::fake": "PASSED"}


def test_a_broken_case_file_is_told_by_line_and_the_others_still_run(project):
    project.case("right")
    project.case("broken", "paramters: {}")
    code, said = project.pytest("-v", "--continue-on-collection-errors")
    assert code == 1
    assert "cases/broken.yaml:10:1: unknown key 'paramters'" in said
    assert set(outcomes(said).values()) == {"PASSED"}


def test_a_backend_that_cannot_be_had_is_skipped_loudly_unless_it_was_named(project):
    project.backend("future", python=">=4")
    project.case("right")
    settings = project.folder / "pyproject.toml"
    settings.write_text(settings.read_text().replace('"fake-scan"]', '"future"]'))
    code, said = project.pytest("-v", "--gradcheck-offline")
    assert (code, outcomes(said)) == (0, {"cases/right.yaml::fake": "PASSED", "cases/right.yaml::future": "SKIPPED"})
    assert "cases/right.yaml::future: future did not run: future needs Python >=4" in said
    code, said = project.pytest("-v", "--gradcheck-offline", "--gradcheck-backend", "futur")
    assert code != 0
    assert "unknown backend 'futur', did you mean 'future'?" in said
    for named in (["--gradcheck-backend", "future"], ["--gradcheck-strict"]):
        code, said = project.pytest("-v", "--gradcheck-offline", *named)
        assert code == 1
        assert outcomes(said)["cases/right.yaml::future"] == "FAILED"
        assert "error[GC901]: future could not be started" in said


def test_what_cannot_be_judged_passes_with_a_word_and_fails_under_strict(project):
    project.case("kink", "backends: [fake]", step="kinked")
    code, said = project.pytest("-v")
    assert (code, outcomes(said)) == (0, {"cases/kink.yaml::fake": "PASSED"})
    assert "cases/kink.yaml::fake: 1 of 2 checks are inconclusive (--gradcheck-strict fails them)" in said
    code, said = project.pytest("-v", "--gradcheck-strict")
    assert (code, outcomes(said)) == (1, {"cases/kink.yaml::fake": "FAILED"})
    assert "inconclusive[GC402]" in said


def test_what_is_expected_passes_and_fails_when_it_is_gone(project):
    expected = 'expect: [{{backend: fake, code: {}, reason: "an old friend"}}]'
    project.case("known", FAULT.format("zero@unroll") + "\n" + expected.format("GC2xx"))
    project.case("gone", expected.format("GC2xx"))
    code, said = project.pytest("-v")
    assert outcomes(said) == {
        "cases/gone.yaml::fake": "FAILED",
        "cases/gone.yaml::fake-scan": "PASSED",
        "cases/known.yaml::fake": "PASSED",
        "cases/known.yaml::fake-scan": "PASSED",
    }
    assert code == 1
    assert "error[GC801]: expected GC2xx did not occur" in said


def test_xdist_runs_a_framework_in_one_process(project):
    """And what a case expects of one framework is not called gone by the worker that has the other."""
    project.backend("other")
    line = "open(f'{os.path.dirname(__file__)}/pids', 'a').write(f'{os.getpid()}\\n')"
    more = "backends: [fake, fake-scan, other, other-scan]\n" + FAULT.format("zero")
    for name in ("one", "two"):
        project.case(name, more + '\nexpect: [{code: GC2xx, reason: "an old friend"}]', line=line)
    code, said = project.pytest("-v", "-n", "2", "--dist", "loadgroup")
    assert code == 0, said
    assert re.search(r"\b8 passed", said)
    assert len(set((project.folder / "cases" / "pids").read_text().split())) == 2


def test_a_real_backend(project):
    project.case("real", "backends: [unroll]")
    code, said = project.pytest("-v")
    assert (code, outcomes(said)) == (0, {"cases/real.yaml::unroll": "PASSED"})


def test_the_plugin_costs_nothing_where_there_are_no_cases():
    heavy = ("numpy", "pydantic", "rich", "ruamel", "execnet", "psutil", "uv", "click")
    program = (
        "import sys, pytest\nbefore = set(sys.modules)\nimport gradcheck.pytest_plugin\n"
        f"found = [name for name in {heavy!r} if name in sys.modules and name not in before]\nassert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
