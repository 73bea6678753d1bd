"""What other programs call: [tool.gradcheck], shell completion, the pre-commit hook, the GitHub Action."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gradcheck.catalog import load_backends
from gradcheck.cli import main
from gradcheck.configuration import KEYS, configuration, settings_from
from gradcheck.diagnosis.codes import CODES
from gradcheck.errors import UsageError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GRADCHECK = Path(sys.executable).with_name("gradcheck")

# what `gradcheck run` hands over if nothing is typed
NOTHING = main.commands["run"].make_context("run", []).params


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one case and a fake backend; writes its pyproject.toml."""
    fake = tmp_path / "tools" / "fake"
    fake.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "wrong_on_purpose" / "fake_adapter.py", fake / "adapter.py")
    (fake / "backend.toml").write_text(
        'name = "fake"\nframework = "numpy"\npython = ">=3.9"\nrequires = ["numpy>=1.22"]\n'
        '[rollouts]\nfake = "unroll"\n[options.fault]\ndefault = ""\n'
    )
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small.yaml").write_text(
        "name: small-model\nstep: {equations: {h: tanh(h * w)}}\nsteps: 2\ncarry: {h: {shape: [2], init: normal}}\n"
        "parameters: {w: {shape: [], init: ones}}\nobjectives: {h: {of: h, wrt: [w]}}\n"
    )
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")

    def write(text: str) -> Path:
        (tmp_path / "pyproject.toml").write_text(text)
        return tmp_path

    return write


def gradcheck(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GRADCHECK, *arguments], cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, timeout=120
    )


# --- [tool.gradcheck] -------------------------------------------------------------------------------------------------

EVERY_KEY = """
[project]
name = "models"

[tool.gradcheck]
backends = ["fake"]
cases = ["models"]
backend_folders = ["tools"]
timeout = 120
diagnose_seconds = 0
memory = 2.5
jobs = 1
strict = true
[tool.gradcheck.python]
fake = "bin/python"
"""


def test_every_key_does_what_it_says(project):
    root = project(EVERY_KEY)
    assert set(configuration().table) == set(KEYS)
    settings, paths = settings_from(NOTHING, ())
    assert paths == [root / "models"]
    assert settings.default_backends == ("fake",)
    assert settings.extra_backends == (root / "tools",)
    assert (settings.limits.timeout, settings.limits.memory, settings.diagnose_seconds) == (120, 2.5, 0)
    assert (settings.jobs, settings.strict) == (1, True)
    assert settings.python == {"fake": root / "bin" / "python"}


def test_the_command_line_comes_before_the_configuration(project):
    project(EVERY_KEY)
    typed = {"timeout": 3.0, "memory": 1.0, "diagnose_seconds": 7.0, "jobs": 2, "python": {"fake": Path("/python")}}
    settings, paths = settings_from({**NOTHING, **typed, "folders": (Path("other"),)}, (Path("x.yaml"),))
    assert (settings.limits.timeout, settings.limits.memory, settings.diagnose_seconds) == (3, 1, 7)
    assert (settings.jobs, settings.python, paths) == (2, {"fake": Path("/python")}, [Path("x.yaml")])
    assert settings.extra_backends[0] == Path("other")


def test_every_command_reads_it(project):
    project(EVERY_KEY.replace('fake = "bin/python"', f"fake = {json.dumps(sys.executable)}"))
    done = gradcheck("run", "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(b["name"], b["environment"]) for b in report["backends"]] == [("fake", "given")]
    assert report["cases"][0]["name"] == "small-model"
    assert gradcheck("lint").stdout == "1 case file without problems\n"
    assert re.search(r"^fake +unroll +numpy \S+  \(given\)$", gradcheck("list", "backends").stdout, re.MULTILINE)
    assert "small-model: 2 steps, 1 objectives, 1 gradients, on fake" in gradcheck("list").stdout
    assert gradcheck("doctor", "fake").stdout.startswith("fake: healthy  (fake)")


def test_the_readme_documents_every_key():
    table = re.search(r"```toml\n(\[tool\.gradcheck\]\n.*?)```", README, re.DOTALL)[1]
    assert set(KEYS) == set(re.findall(r"^(\w+) =", table.partition("[tool.gradcheck.python]")[0], re.MULTILINE)) | {
        "python"
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timeuot = 3", "pyproject.toml:3:1: [tool.gradcheck] has no key 'timeuot', did you mean 'timeout'?"),
        ("  'strickt' = true", "pyproject.toml:3:3: [tool.gradcheck] has no key 'strickt', did you mean 'strict'?"),
        ("xyz = 3", "pyproject.toml:3:1: [tool.gradcheck] has no key 'xyz' (there is backends, "),
        ("timeout = 0", "pyproject.toml:3:1: [tool.gradcheck] timeout takes a positive number of seconds, not 0"),
        ("memory = '2 GB'", "3:1: [tool.gradcheck] memory takes a positive number of GB, not '2 GB'"),
        ("diagnose_seconds = true", "3:1: [tool.gradcheck] diagnose_seconds takes a number of seconds"),
        ("jobs = 1.5", "3:1: [tool.gradcheck] jobs takes a positive whole number, not 1.5"),
        ("strict = 1", "3:1: [tool.gradcheck] strict takes true or false, not 1"),
        ("backends = 'unroll'", "3:1: [tool.gradcheck] backends takes a list of names"),
        ("cases = [3]", "3:1: [tool.gradcheck] cases takes a list of files and folders"),
        ("backend_folders = [['a']]", "3:1: [tool.gradcheck] backend_folders takes a list of folders"),
        ("python.jax = 3", "3:1: [tool.gradcheck] python takes a table of interpreters"),
        ("[tool.gradcheck.pyton]\njax = '/python'", "3:1: [tool.gradcheck] has no key 'pyton', did you mean 'python'?"),
        ("backends = [", "cannot read"),
    ],
)
def test_a_mistake_is_one_error_with_its_place(project, text, said):
    root = project(f"# models\n[tool.gradcheck]\n{text}\n")
    with pytest.raises(UsageError) as caught:
        configuration()
    assert said in str(caught.value)
    assert str(root) in str(caught.value)


def test_another_way_to_write_the_table_is_told_without_a_line(project):
    root = project("tool = {gradcheck = {timeuot = 3}}\n")
    with pytest.raises(UsageError, match="no key 'timeuot'") as caught:
        configuration()
    assert str(caught.value).startswith(f"{root / 'pyproject.toml'}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backends = ['unrol']", "[tool.gradcheck] backends: unknown backend 'unrol', did you mean 'unroll'?"),
        ("python = {jaxx = '/python'}", "[tool.gradcheck.python]: unknown framework 'jaxx', did you mean 'jax'?"),
        ("timeuot = 3", "error: ../pyproject.toml:2:1: "),
    ],
)
def test_the_commands_say_it_and_exit_with_2(project, text, said):
    project(f"[tool.gradcheck]\n{text}\n")
    done = gradcheck("lint", "../models")
    assert (done.returncode, done.stdout) == (2, "")
    assert said.replace("../", f"{Path.cwd().parent}{os.sep}") in done.stderr


# --- shell completion -------------------------------------------------------------------------------------------------


def offered(*words: str) -> list[str]:
    """What bash would be offered for the last word."""
    done = gradcheck(
        COMP_WORDS=" ".join(["gradcheck", *words]), COMP_CWORD=str(len(words)), _GRADCHECK_COMPLETE="bash_complete"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_names_are_completed(project):
    project(EVERY_KEY)
    assert offered("run", "-b", "f") == ["fake"]
    assert offered("run", "-b", "jax") == [name for name in load_backends() if name.startswith("jax")]
    assert offered("run", "-k", "small") == ["small-model"]
    assert offered("explain", "GC") == list(CODES)
    assert offered("doctor", "th") == ["theano"]
    assert offered("run", "--python", "ja") == ["jax="]
    assert offered("init", "mine", "--from", "ls") == ["lstm"]


def test_completion_is_silent_about_what_is_broken(project):
    project("[tool.gradcheck]\ntimeuot = 3\n")
    assert offered("run", "-b", "") == []
    assert offered("run", "-k", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_readmes_lines_turn_completion_on(shell):
    [line] = re.findall(rf"^.*_GRADCHECK_COMPLETE={shell}_source.*$", README, re.MULTILINE)
    if shutil.which(shell) is None:  # its script is made by the same command; only bash is on every machine
        script = gradcheck(_GRADCHECK_COMPLETE=f"{shell}_source").stdout
        assert "_GRADCHECK_COMPLETE" in script
        return
    told = line.partition("#")[0].strip()
    path = f"{GRADCHECK.parent}{os.pathsep}{os.environ['PATH']}"
    check = {"bash": "complete -p gradcheck", "zsh": "whence -v _gradcheck_completion", "fish": "complete -c gradcheck"}
    before = "autoload -U compinit && compinit -u; " if shell == "zsh" else ""
    done = subprocess.run(
        [shell, "-c", f"{before}{told}\n{check[shell]}"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert "_gradcheck_completion" in done.stdout, done.stderr


# --- pre-commit -------------------------------------------------------------------------------------------------------


def test_the_hook_lints_what_pre_commit_would_hand_over(project):
    root = project("")
    [hook] = YAML(typ="safe").load(ROOT / ".pre-commit-hooks.yaml")
    assert set(hook) == {"id", "name", "description", "entry", "language", "files", "types"}
    assert (hook["id"], hook["language"], hook["types"]) == ("gradcheck-lint", "python", ["yaml"])
    shutil.copytree(root / "models", root / "cases")
    (root / "cases" / "broken.yaml").write_text((root / "cases" / "small.yaml").read_text().replace("tanh", "tahn"))
    (root / "docker-compose.yaml").write_text("services: {}\n")
    everything = sorted(str(p.relative_to(root)) for p in root.rglob("*.yaml"))
    handed = [path for path in everything if re.search(hook["files"], path)]
    assert handed == ["cases/broken.yaml", "cases/small.yaml"]
    program, *arguments = hook["entry"].split()
    assert program == "gradcheck"
    done = gradcheck(*arguments, *handed, cwd=root)
    assert done.returncode == 2
    assert done.stdout == "cases/broken.yaml:2:23: unknown function 'tahn', did you mean 'tan'?\n"
    assert gradcheck(*arguments, "cases/small.yaml", cwd=root).returncode == 0
    assert f"id: {hook['id']}" in README


# --- the GitHub Action ------------------------------------------------------------------------------------------------

ACTION = YAML(typ="safe").load(ROOT / "action.yml")
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}


def test_the_action_is_a_composite_one_that_uploads_nothing():
    assert ACTION["runs"]["using"] == "composite"
    assert set(ACTION) <= {"name", "description", "author", "branding", "inputs", "outputs", "runs"}
    used = [step["uses"] for step in STEPS.values() if "uses" in step]
    assert [name.partition("@")[0] for name in used] == ["actions/setup-python", "actions/cache"]
    for step in STEPS.values():
        assert ("uses" in step) != ("run" in step)
        if "run" in step:
            assert step["shell"] == "bash"  # a composite action has no default
            assert "${{" not in step["run"]  # an input is never program text
    text = (ROOT / "action.yml").read_text()
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(ACTION["inputs"])
    for step, output in re.findall(r"steps\.(\w+)\.outputs\.([\w-]+)", text):
        [found] = [s for s in STEPS.values() if s.get("id") == step]
        assert f'"{output}=' in found["run"]
    for name in ACTION["inputs"]:
        assert f"`{name}`" in README


@pytest.fixture
def runner(project, tmp_path):
    """Runs a step of the action as the runner would, with these inputs; returns the process and what it set."""
    root = project(EVERY_KEY.replace('[tool.gradcheck.python]\nfake = "bin/python"\n', ""))

    def run(name: str, action: Path = ROOT, path: str = "", **inputs: str):
        step = STEPS[name]
        files = {key: tmp_path / key for key in ("GITHUB_OUTPUT", "GITHUB_ENV")}
        environ = {**os.environ, "GITHUB_ACTION_PATH": str(action), "RUNNER_TEMP": str(tmp_path)}
        environ |= {key: str(file) for key, file in files.items()}
        environ["PATH"] = os.pathsep.join(filter(None, (path, str(GRADCHECK.parent), os.environ["PATH"])))
        given = {key: entry["default"] for key, entry in ACTION["inputs"].items()} | inputs
        for key, value in step.get("env", {}).items():
            environ[key] = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: given[m[1]], value)
        for file in files.values():
            file.write_text("")
        command = [
            "bash",
            "--noprofile",
            "--norc",
            "-e",
            "-o",
            "pipefail",
            "-c",
            step["run"],
        ]  # as GitHub's runner does
        done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=120)
        lines = "".join(file.read_text() for file in files.values()).splitlines()
        return done, dict(line.split("=", 1) for line in lines)

    return run


def test_the_action_installs_itself(runner, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    done, _ = runner("Install gradcheck", path=str(tmp_path / "bin"))
    assert done.stdout.split() == ["-m", "pip", "install", "--quiet", str(ROOT)]


def test_the_actions_cache_follows_the_manifests(runner, tmp_path):
    name = "Find what the environments are built from"
    done, first = runner(name)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[0-9a-f]{64}", first["hash"])
    assert first["GRADCHECK_CACHE"] == str(tmp_path / "gradcheck-cache")
    kept = STEPS["Keep the environments"]["with"]
    assert kept["path"] == "${{ runner.temp }}/gradcheck-cache"
    assert "steps.environments.outputs.hash" in kept["key"]
    copy = tmp_path / "action"
    shutil.copytree(ROOT / "backends", copy / "backends", ignore=shutil.ignore_patterns("__pycache__"))
    assert runner(name, copy)[1]["hash"] == first["hash"]
    (copy / "backends" / "jax" / "adapter.py").write_text("# another\n")
    assert runner(name, copy)[1]["hash"] == first["hash"]
    (copy / "backends" / "jax" / "requirements.txt").write_text("jax==0.10.1\n")
    assert runner(name, copy)[1]["hash"] != first["hash"]


def test_the_action_runs_the_cases_and_annotates(runner, tmp_path):
    done, told = runner("Check the gradients")
    assert (done.returncode, told) == (0, {"exit-code": "0"}), done.stderr
    case = tmp_path / "models" / "small.yaml"
    case.write_text(case.read_text() + "options: {fake: {fault: negated}}\n")
    done, told = runner("Check the gradients", paths="models/small.yaml models/*.yml", args="--strict -b fake")
    assert (done.returncode, told) == (2, {"exit-code": "2"})  # no pattern is expanded
    done, told = runner("Check the gradients", paths="models/small.yaml", args="-b fake; touch injected")
    assert done.returncode == 2
    assert not (tmp_path / "injected").exists()
    done, told = runner("Check the gradients", paths="models/small.yaml", args="-b fake")
    assert (done.returncode, told) == (1, {"exit-code": "1"})
    assert re.search(r"^::error file=models/small\.yaml,", done.stdout, re.MULTILINE)
