"""The commands, in process: what --help shows and costs, and that each command does what its help says."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from gradcheck import __version__
from gradcheck.cli import main
from gradcheck.diagnosis.codes import CODES

SHIPPED = Path(str(files("gradcheck._cases")))
CASES = sorted(SHIPPED.glob("*.yaml"))
HEAVY = ("numpy", "pydantic", "rich", "ruamel", "execnet", "psutil", "theano", "jax", "autograd", "uv", "junitparser")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gradcheck(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="gradcheck")
    assert "Traceback" not in result.output
    return result


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", sorted(main.commands))
def test_the_help_of_a_command_shows_examples(command):
    result = gradcheck(command, "--help")
    assert result.exit_code == 0
    examples = result.output.partition("Examples:\n")[2].splitlines()
    assert examples
    assert all(line.strip().startswith(f"gradcheck {command}") for line in examples), examples


def test_the_help_names_every_command():
    result = gradcheck("--help")
    assert result.exit_code == 0
    assert set(main.commands) == {"run", "list", "explain", "doctor", "lint", "schema", "init"}
    assert all(f"\n  {command} " in result.output for command in main.commands)
    assert gradcheck("-h").output == result.output


def test_the_help_of_run_states_the_exit_codes():
    text = " ".join(gradcheck("run", "--help").output.split())
    for meaning in (
        "0 as expected",
        "1 unexpected findings",
        "2 usage",
        "3 not judged",
        "4 internal",
        "5 no case",
        "130",
    ):
        assert meaning in text


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    program = (
        "import sys\nfrom gradcheck.cli import main\ntry:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\nassert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_version():
    assert gradcheck("--version").output.split()[-1] == __version__


# --- usage errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["explain", "GC999"], "unknown code 'GC999'"),
        (["explain", "noise-redrawm"], "noise-redrawn"),
        (["init", "a/b"], "cannot be a case's name"),
        (["init", "mine", "--from", "gruu"], "no shipped case 'gruu', did you mean 'gru'?"),
        (["doctor", "thaeno"], "unknown backend 'thaeno', did you mean 'theano'?"),
        (["list", "cases", "nowhere"], "nowhere: no such file or folder"),
        (["lint", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_a_wrong_word_is_exit_2(arguments, said):
    result = gradcheck(*arguments)
    assert result.exit_code == 2
    assert said in result.output


# --- explain, schema --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(CODES))
def test_explain(code):
    text = gradcheck("explain", code)
    assert text.exit_code == 0
    assert text.output.startswith(f"# {code} ")
    assert gradcheck("explain", CODES[code].name).output == text.output


def test_explain_lists_all_codes():
    lines = gradcheck("explain").output.splitlines()
    assert [line.split()[0] for line in lines] == list(CODES)


def test_the_schema_accepts_what_is_shipped_and_nothing_else():
    schema = json.loads(gradcheck("schema").output)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert CASES
    for path in CASES:
        validator.validate(YAML(typ="safe").load(path))
    broken = YAML(typ="safe").load(CASES[0])
    broken["paramters"] = broken.pop("parameters")
    assert not validator.is_valid(broken)


# --- init, list, lint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [path.stem for path in CASES])
def test_init_writes_a_case_that_can_be_loaded(empty_folder, template):
    result = gradcheck("init", "my-model", "--from", template)
    assert result.exit_code == 0
    files = (
        ["my-model.yaml"] if template == "lstm" else ["my-model.yaml", "my_model.py"]
    )  # whose step is in the case file
    assert result.output == "".join(f"wrote {name}\n" for name in files) + "now:  gradcheck run my-model.yaml\n"
    assert sorted(path.name for path in empty_folder.iterdir()) == files
    lint = gradcheck("lint", "my-model.yaml")
    assert (lint.exit_code, lint.output) == (0, "1 case file without problems\n")
    listed = gradcheck("list", "cases", "my-model.yaml")
    assert listed.exit_code == 0
    assert listed.output.startswith("my-model.yaml  my-model: ")


def test_init_never_overwrites(empty_folder):
    (empty_folder / "mine.py").write_text("precious")
    result = gradcheck("init", "mine")
    assert result.exit_code == 2
    assert "mine.py exists already" in result.output
    assert [path.name for path in empty_folder.iterdir()] == ["mine.py"]
    assert (empty_folder / "mine.py").read_text() == "precious"


def test_list_shows_cases_and_problems(empty_folder):
    gradcheck("init", "good")
    (empty_folder / "bad.yaml").write_text("steps: none\n")
    result = gradcheck("list", "cases", ".")
    assert result.exit_code == 2
    assert "good.yaml  good: 12 steps, 3 objectives, 18 gradients, on " in result.output
    assert "bad.yaml:1:8: 'steps' must be a whole number" in result.output


def test_list_shows_backends():
    result = gradcheck("list", "backends")
    assert result.exit_code == 0
    rollouts = [line.split()[0] for line in result.output.splitlines()]
    assert {"theano-scan", "theano-unroll", "jax-scan", "jax-unroll", "unroll"} <= set(rollouts)


def test_lint_of_the_shipped_cases_is_clean():
    result = gradcheck("lint", SHIPPED)
    count = len(list(SHIPPED.rglob("*.yaml")))
    assert (result.exit_code, result.output) == (0, f"{count} case files without problems\n")


def test_lint_never_runs_a_step(empty_folder):
    gradcheck("init", "mine")
    step = empty_folder / "mine.py"
    step.write_text("open('ran', 'w')\n" + step.read_text())
    assert gradcheck("lint", "mine.yaml").exit_code == 0
    assert not (empty_folder / "ran").exists()


def test_nothing_to_lint_or_list(empty_folder):
    assert gradcheck("lint", empty_folder).exit_code == 5
    assert gradcheck("list", "cases", empty_folder).exit_code == 5


# --- what must not happen ---------------------------------------------------------------------------------------------


def test_an_internal_error_leaves_a_log_and_no_traceback(monkeypatch, tmp_path):
    """The traceback is in a file that is named, for a report of the bug."""
    monkeypatch.setattr("gradcheck.starter.write", lambda name, template: 1 / 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = gradcheck("init", "mine")
    assert result.exit_code == 4
    (log,) = tmp_path.glob("gradcheck-internal-*.log")
    assert str(log) in result.output
    assert "ZeroDivisionError" in log.read_text()
