"""What bad input gets: one clear error with its code, the right exit code, and nothing else lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

backend = pytest.mark.backend  # the real numpy backend, in an environment that is built on demand

# --- files that cannot be read, and cases that make no sense: exit 2 --------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "bad.yaml:1:1: the file is empty"),
        ("# only a comment\n", "bad.yaml:1:1: the file is empty"),
        ("name: [unclosed\n", "not YAML"),
        ("- a list\n", "a case file is a mapping"),
        ("name: \x00\n", "not YAML"),
    ],
)
def test_a_file_that_is_no_case(gradcheck, text, said):
    (gradcheck.folder / "bad.yaml").write_text(text)
    done = gradcheck("run", "bad.yaml", "-b", "unroll")
    assert (done.returncode, done.stderr) == (2, "")
    assert said in done.stdout
    assert "exit 2:" in done.stdout


def test_a_path_that_does_not_exist(gradcheck):
    done = gradcheck("run", "nowhere.yaml", "nor/here")
    assert done.returncode == 2
    assert done.stdout.count("no such file or folder") == 2
    assert "nowhere.yaml: no such file or folder" in done.stdout


def test_a_binary_file(gradcheck):
    (gradcheck.folder / "bad.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    done = gradcheck("run", "bad.yaml")
    assert done.returncode == 2
    assert "bad.yaml:1:1: not UTF-8 text" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("parameters:", "paramters:", "bad.yaml:9:1: unknown key 'paramters', did you mean 'parameters'?"),
        ("init: glorot", "inti: glorot", "unknown key 'inti', did you mean 'init'?"),
        ("[batch, input]", "[batch, imput]", "unknown dimension 'imput', did you mean 'input'?"),
        ("steps: 4", "steps: 0", "bad.yaml:3:8: 'steps' must be at least 1, not 0"),
        ("steps: 4", "steps: 4\nsteps: 5", "bad.yaml:4:1: repeated key 'steps', first on line 3"),
        ("bad.py:step", "bad.py:stop", "no function 'stop' in bad.py, did you mean 'step'?"),
        ("bad.py:step", "worse.py:step", "no step file 'worse.py'"),
        ("wrt: [W_x, W_h]", "wrt: [W_x, W_y]", "'W_y'"),
        ("init: zeros", "init: {value: [1, 2, 3]}", "bad.yaml:8:37: 'value' has shape [3], 'h' needs shape [2, 4]"),
        ("steps: 4", "steps: 4\nbackends: [unrol]", "unknown backend 'unrol', did you mean 'unroll'?"),
        ("steps: 4", "steps: 4\noptions: {numpy: {speed: high}}", "numpy has no option 'speed'"),
    ],
)
def test_a_case_that_makes_no_sense(gradcheck, wrong, right, said):
    path = gradcheck.folder / gradcheck.case("bad")
    text = path.read_text()
    assert wrong in text
    path.write_text(text.replace(wrong, right, 1))
    done = gradcheck("run", "bad.yaml")
    assert (done.returncode, done.stderr) == (2, "")
    assert said in done.stdout.replace("\n  ", " "), done.stdout


def test_every_problem_is_told_at_once(gradcheck):
    path = gradcheck.folder / gradcheck.case("bad")
    path.write_text(
        path.read_text().replace("sequences", "sequenzes").replace("glorot", "glorott").replace("of: h", "off: h")
    )
    done = gradcheck("run", "bad.yaml")
    assert done.returncode == 2
    for word in ("sequenzes", "glorott", "off"):
        assert word in done.stdout


def test_a_step_file_with_a_syntax_error(gradcheck):
    done = gradcheck("run", gradcheck.case("bad", step="def step(xp, x, h, W_x, W_h):\n    return {\n"))
    assert done.returncode == 2
    assert "bad.py:2:" in done.stdout
    assert "syntax error" in done.stdout


# --- a command line that makes no sense: exit 2 -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-b", "unrol"], "unknown backend 'unrol', did you mean 'unroll'?"),
        (["--python", "nmpy=/usr/bin/python3"], "unknown framework 'nmpy', did you mean 'numpy'?"),
        (["--python", "/usr/bin/python3"], "is not of the form BACKEND=PATH"),
        (["-k", "and and"], "cannot read 'and and'"),
        (["--timeout", "0"], "--timeout"),
        (["--format", "xml"], "--format"),
        (["--backends", "nowhere"], "no backend in nowhere"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_a_command_line_that_makes_no_sense(gradcheck, arguments, said):
    done = gradcheck("run", gradcheck.case(), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_configuration_that_makes_no_sense(gradcheck):
    (gradcheck.folder / "pyproject.toml").write_text("[tool.gradcheck]\ntimeuot = 3\n")
    done = gradcheck("run", gradcheck.case())
    assert (done.returncode, done.stdout) == (2, "")
    assert "no key 'timeuot', did you mean 'timeout'?" in done.stderr


# --- steps that misbehave ---------------------------------------------------------------------------------------------

WHERE = {"line": 8}  # of the line that a test puts into the step


@backend
@pytest.mark.parametrize(
    ("line", "status", "code", "said"),
    [
        ("raise RuntimeError('out of luck')", 3, "GC905", "RuntimeError: out of luck"),
        ("sys.exit(0)", 3, "GC905", "the step called sys.exit(0)"),
        ("return {'hidden': h}", 3, "GC905", "did not return the carry 'h'; it returned 'hidden'"),
        ("return h", 3, "GC905", "returned ndarray, not a dict"),
        ("h = h[:, :2]", 3, "GC905", "enters the step with shape (2, 4) and leaves it with shape (2, 2)"),
        ("h = h / 0.0 - h / 0.0", 1, "GC303", "the objective itself is nan"),
        ("xp.tahn(h)", 3, "GC905", "xp has no 'tahn', did you mean"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()", 3, "GC90", "Odd"),
        ("raise ValueError('\\ud800 is no text')", 3, "GC905", "is no text"),
        ("sys.stdout = sys.stderr = None; sys.exit('gone')", 3, "GC905", "the step called sys.exit"),
        ("h = h + input()", 3, "GC905", "EOFError"),
        ("sys.setrecursionlimit(100); (lambda f: f(f))(lambda f: f(f))", 3, "GC905", "RecursionError"),
        ("os._exit(9)", 3, "GC902", "exit status 9"),
        ("os.kill(os.getpid(), 11)", 3, "GC902", "signal 11"),
    ],
)
def test_a_step_that_misbehaves(gradcheck, line, status, code, said):
    """The good case beside it passes, and the report is whole."""
    bad, good = gradcheck.case("bad", line), gradcheck.case("good")
    done = gradcheck("run", bad, good, "-b", "unroll", "--json", "report.json")
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr == ""
    report = json.loads((gradcheck.folder / "report.json").read_text())
    first, second = report["cases"]
    assert all(check["codes"][0].startswith(code) for check in first["checks"]), first["checks"]
    assert all(check["verdict"] == "pass" for check in second["checks"])
    (finding,) = first["findings"]
    assert finding["code"].startswith(code)
    assert said in f"{finding['title']}\n{finding['because']}"
    assert f"error[{finding['code']}]" in done.stdout
    assert report["exit_code"] == status
    if line.startswith(("raise", "sys.exit", "xp.", "h = h + input")):
        assert (finding["blame"]["file"], finding["blame"]["line"]) == ("bad.py", WHERE["line"])


@backend
def test_a_step_file_that_raises_while_it_is_loaded(gradcheck):
    bad = gradcheck.case("bad", step="import numpyy\n\n\ndef step(xp, x, h, W_x, W_h):\n    return {'h': h}\n")
    done = gradcheck("run", bad, "-b", "unroll")
    assert done.returncode == 3
    assert "error[GC905]" in done.stdout
    assert "ModuleNotFoundError: No module named 'numpyy'" in done.stdout
    assert "bad.py:1" in done.stdout


@backend
@pytest.mark.parametrize("line", ["print('hello')", "os.write(1, b'hello')", "os.system('echo hello')"])
def test_a_step_that_prints(gradcheck, line):
    done = gradcheck("run", gradcheck.case(line=line), "-b", "unroll", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["summary"]["passed"] == 2
    assert "hello" not in done.stdout


@backend
def test_a_step_that_never_ends(gradcheck):
    """... and starts a process of its own, which must not outlive the run."""
    line = "import subprocess; subprocess.Popen(['sleep', '4321']); [None for _ in iter(int, 1)]"
    bad, good = gradcheck.case("bad", line), gradcheck.case("good")
    done = gradcheck("run", bad, good, "-b", "unroll", "--timeout", "3", "--json", "report.json")
    assert done.returncode == 3
    assert "error[GC903]: unroll ran out of time" in done.stdout
    assert "no answer within 3 s" in done.stdout
    report = json.loads((gradcheck.folder / "report.json").read_text())
    assert [check["verdict"] for check in report["cases"][1]["checks"]] == ["pass", "pass"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "4321"]]


# --- environments that cannot be had ----------------------------------------------------------------------------------


def test_an_interpreter_that_does_not_exist(gradcheck):
    done = gradcheck("run", gradcheck.case(), "-b", "unroll", "--python", "numpy=/nonexistent")
    assert (done.returncode, done.stderr) == (3, "")
    assert "error[GC901]: unroll could not be started" in done.stdout
    assert "there is no interpreter /nonexistent" in done.stdout
    assert "warning: unroll did not run" in done.stdout


def test_an_interpreter_that_lacks_the_framework(gradcheck):
    done = gradcheck("run", gradcheck.case(), "-b", "unroll", "--python", "numpy=/bin/sh")
    assert done.returncode == 3
    assert "GC901" in done.stdout


def test_offline_with_an_empty_cache(gradcheck, tmp_path):
    """No network, nothing in uv's cache, and no wheels in local folders either, whatever this machine's settings are."""
    empty = {"GRADCHECK_CACHE": str(tmp_path / "cache"), "UV_CACHE_DIR": str(tmp_path / "uv")}
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "UV_FIND_LINKS": "", "UV_NO_CONFIG": "1"}
    nowhere |= {"PIP_INDEX_URL": "https://pypi.invalid/simple", "PIP_EXTRA_INDEX_URL": "", "UV_INDEX_URL": ""}
    done = gradcheck("run", gradcheck.case(), "-b", "unroll", "--offline", **empty, **nowhere)
    assert (done.returncode, done.stderr) == (3, "")
    assert "error[GC901]" in done.stdout
    assert "--offline forbids downloading what it needs" in " ".join(done.stdout.split())
    assert "gradcheck doctor numpy" in " ".join(done.stdout.split())
    assert not list((tmp_path / "cache" / "environments").glob("numpy-*"))


def test_a_cache_folder_that_cannot_be_written(gradcheck, tmp_path):
    (tmp_path / "occupied").write_text("a file")
    done = gradcheck("run", gradcheck.case(), "-b", "unroll", GRADCHECK_CACHE=str(tmp_path / "occupied"))
    assert (done.returncode, done.stderr) == (3, "")
    assert "error[GC901]" in done.stdout
    assert "cannot write the environment of numpy" in done.stdout
    assert "set GRADCHECK_CACHE to a folder that can be written" in " ".join(done.stdout.split())


DEFAULTS = '[tool.gradcheck]\nbackends = ["fake", "unroll"]\nbackend_folders = ["backends"]\n'
GONE = ("--python", "numpy=/nonexistent")


def test_a_default_backend_that_cannot_be_had_is_one_loud_line(gradcheck, fake_backends):
    (gradcheck.folder / "pyproject.toml").write_text(DEFAULTS)
    case = gradcheck.case()
    done = gradcheck("run", case, *GONE)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("warning: unroll did not run: there is no interpreter /nonexistent") == 1
    assert "2 passed, 2 not run" in done.stdout
    # under --strict, or if it is asked for by name, that is a failure
    assert gradcheck("run", case, *GONE, "--strict").returncode == 3
    assert gradcheck("run", case, *GONE, "-b", "fake", "-b", "unroll").returncode == 3
    assert gradcheck("run", gradcheck.case("named", more="backends: [fake, unroll]"), *GONE).returncode == 3


def test_a_default_backend_that_cannot_be_had_is_told_even_quietly(gradcheck, fake_backends):
    (gradcheck.folder / "pyproject.toml").write_text(DEFAULTS)
    done = gradcheck("run", gradcheck.case(), *GONE, "-q")
    assert done.returncode == 0
    assert "unroll" in done.stdout


def test_nothing_ran_is_not_everything_as_expected(gradcheck):
    (gradcheck.folder / "pyproject.toml").write_text('[tool.gradcheck]\nbackends = ["unroll"]\n')
    assert gradcheck("run", gradcheck.case(), *GONE).returncode == 3


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sleep", ["time.sleep(60)", "[None for _ in iter(int, 1)]"])
def test_interrupted_in_the_middle(gradcheck, fake_backends, sleep):
    started = gradcheck.folder / "started"
    case = gradcheck.case(line=f"open({str(started)!r}, 'w').close(); {sleep}")
    arguments = ("run", "--backends", "backends", "-b", "fake", case, "--json", "report.json", "--junit", "report.xml")
    process = gradcheck.start(*arguments)
    try:
        wait_for(started.exists)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (out, err.strip()) == ("", "interrupted: the workers were stopped, no report was written")
    wait_for(lambda: not any(worker.is_running() for worker in workers))
    assert sorted(p.name for p in gradcheck.folder.iterdir()) == ["backends", "model.py", "model.yaml", "started"]
    assert not list(gradcheck.temporary.iterdir())


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--json", "--junit"])
def test_a_report_that_cannot_be_written(gradcheck, fake_backends, option):
    """What was found is not lost: it is printed, and the other report is written."""
    other = {"--json": "--junit", "--junit": "--json"}[option]
    arguments = ("--backends", "backends", "-b", "fake", option, "no/such/folder/report", other, "whole")
    done = gradcheck("run", gradcheck.case(), *arguments)
    assert done.returncode == 2
    assert "error: cannot write the report to no/such/folder/report" in done.stderr
    assert "2 passed" in done.stdout
    assert (gradcheck.folder / "whole").stat().st_size > 100


def test_a_report_that_is_a_folder(gradcheck, fake_backends):
    done = gradcheck("run", gradcheck.case(), "--backends", "backends", "-b", "fake", "--json", ".")
    assert done.returncode == 2
    assert "cannot write the report to ." in done.stderr
    assert not list(gradcheck.folder.glob(".*.tmp"))


def test_an_earlier_report_stays_whole_if_the_run_is_broken_off(gradcheck, fake_backends):
    (gradcheck.folder / "report.json").write_text("{}")
    done = gradcheck("run", gradcheck.case(), "-b", "no-such", "--json", "report.json")
    assert (done.returncode, (gradcheck.folder / "report.json").read_text()) == (2, "{}")


# --- what to run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "gradcheck init"),
        (["."], "gradcheck init"),
        (["-k", "nothing", "."], "no case's name matches -k 'nothing'"),
    ],
)
def test_no_case_collected(gradcheck, arguments, said):
    (gradcheck.folder / "cases").mkdir()
    if "-k" in arguments:
        gradcheck.case()
    done = gradcheck("run", *arguments)
    assert done.returncode == 5
    assert said in " ".join(done.stdout.split())
    assert "exit 5: no case was collected" in done.stdout


def test_a_case_that_has_none_of_the_backends_asked_for(gradcheck, fake_backends):
    case = gradcheck.case(more="backends: [unroll]")
    done = gradcheck("run", case, "--backends", "backends", "-b", "fake")
    assert done.returncode == 5
    assert "name none of the backends that -b names: model" in " ".join(done.stdout.split())


def test_a_broken_case_does_not_stop_the_others(gradcheck, fake_backends):
    gradcheck.case("good")
    (gradcheck.folder / "broken.yaml").write_text("name: [\n")
    done = gradcheck("run", ".", "missing.yaml", "--backends", "backends", "-b", "fake", "--json", "report.json")
    assert done.returncode == 2
    report = json.loads((gradcheck.folder / "report.json").read_text())
    assert [(case["name"], len(case["checks"])) for case in report["cases"]] == [("good", 2)]
    assert [problem.split(":")[0] for problem in report["problems"]] == ["missing.yaml", "broken.yaml"]
    assert "2 passed, 2 problems in case files" in done.stdout


WRONG = "options: {fake: {fault: scaled}}"


def test_fail_fast_select_and_quiet(gradcheck, fake_backends):
    for name, more in (("alpha", ""), ("beta", WRONG), ("gamma", WRONG)):
        gradcheck.case(name, more=more)
    run = ("run", ".", "--backends", "backends", "-b", "fake")

    def names(*arguments: str) -> tuple[int, list[str]]:
        done = gradcheck(*run, "--json", "-", *arguments)
        return done.returncode, [case["name"] for case in json.loads(done.stdout)["cases"]]

    assert names("-x") == (1, ["alpha", "beta"])
    assert names("-k", "alpha or gamma") == (1, ["alpha", "gamma"])
    assert names("-k", "not (beta or gamma)") == (0, ["alpha"])
    quiet = gradcheck(*run, "-q").stdout.splitlines()
    assert [line.split(":")[0] for line in quiet] == ["beta.yaml", "gamma.yaml", "3 cases, 6 checks"]
    assert all("error[GC204]" in line for line in quiet[:2])


def test_expected_findings(gradcheck, fake_backends):
    run = ("run", "--backends", "backends", "-b", "fake")
    expect = WRONG + '\nexpect: [{code: GC201, reason: "the fake is wrong on purpose"}]'
    case = gradcheck.case(more=expect)
    done = gradcheck(*run, case)
    assert done.returncode == 0
    assert "the fake is wrong on purpose" in done.stdout
    assert gradcheck(*run, case, "--no-expect").returncode == 1
    gone = gradcheck(*run, gradcheck.case(more=expect.replace("scaled", "''")))
    assert gone.returncode == 1
    assert "error[GC801]" in gone.stdout


def test_an_inconclusive_check_fails_only_under_strict(gradcheck, fake_backends):
    rough = "h = h + 1e-3 * (x[:, :1] - x[:, :1] + 1e12) * 1e-3 - 1e6 * (h[:, :1] < 9)"
    case = gradcheck.case(line=rough.replace("1e6", "1e12"))
    run = ("run", case, "--backends", "backends", "-b", "fake", "--json", "-")
    done = gradcheck(*run)
    assert {check["verdict"] for check in json.loads(done.stdout)["cases"][0]["checks"]} == {"inconclusive"}
    assert (done.returncode, gradcheck(*run, "--strict").returncode) == (0, 3)


def test_the_command_that_reruns_what_failed_does_so(gradcheck, fake_backends):
    (gradcheck.folder / "pyproject.toml").write_text(DEFAULTS.replace(', "unroll"', ""))
    gradcheck.case("my model".replace(" ", "_"), more=WRONG)
    done = gradcheck("run", ".", "--json", "-")
    rerun = json.loads(done.stdout)["rerun"].split()
    assert rerun[0] == "gradcheck"
    assert gradcheck(*rerun[1:]).returncode == done.returncode == 1


@pytest.mark.parametrize("arguments", [["schema"], ["run", "--backends", "backends", "-b", "fake", "model.yaml"]])
def test_a_reader_that_goes_away(gradcheck, fake_backends, arguments):
    """`gradcheck run | head`: the outcome is that of the run."""
    gradcheck.case()
    process = gradcheck.start(*arguments)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_folders_with_blanks_and_other_alphabets(tmp_path, gradcheck, fake_backends):
    folder = tmp_path / "mein Modell – модель"
    folder.mkdir()
    gradcheck.case()
    for name in ("model.yaml", "model.py"):
        (tmp_path / name).rename(folder / name)
    done = gradcheck("run", folder, "--backends", "backends", "-b", "fake")
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.split(" · ")[1]).name == "model.yaml"
