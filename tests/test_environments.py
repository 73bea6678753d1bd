from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from gradcheck import environments, interpreters
from gradcheck.catalog import Backend, load_backends
from gradcheck.environments import examine, health_problem, remove, resolve
from gradcheck.errors import BackendError

NOWHERE = "gradcheck-test-no-such-distribution"
# requires what nobody has, so the running interpreter does not do; pins nothing, so that building needs no network
FAKE = Backend("fake", NOWHERE, Path("/"), ">=3.9", (NOWHERE,), {"fake-scan": "scan"}, probe="import json")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRADCHECK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "environments"


def build(backend: Backend = FAKE, **settings) -> tuple[environments.Environment, list[str]]:
    lines: list[str] = []
    return resolve(backend, **{"given": None, "offline": False, "progress": lines.append, **settings}), lines


def failure(backend: Backend = FAKE, **settings) -> BackendError:
    with pytest.raises(BackendError) as caught:
        build(backend, **settings)
    assert caught.value.code == "GC901"
    assert caught.value.note == "the other backends still run"
    assert caught.value.hint
    return caught.value


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def no_build(*_):
    raise AssertionError("a process was started")


# --- the running interpreter, and a given one


def test_the_running_interpreter_is_used_if_it_has_what_is_required(cache):
    environment, lines = build(replace(FAKE, framework="pytest", requires=("pytest>=8",)))
    assert (environment.kind, environment.python, lines) == ("running", Path(sys.executable), [])
    assert environment.framework_version == pytest.__version__
    assert not cache.exists()


@pytest.mark.parametrize("backend", [replace(FAKE, requires=("pytest<1",)), replace(FAKE, requires=(), python="<3")])
def test_the_running_interpreter_is_not_used_if_it_does_not_fit(backend):
    assert examine(backend, given=None, deep=False).kind == "built"


def test_a_given_interpreter_is_used_as_it_was_named():
    for given in (Path(sys.executable), Path(sys.prefix)):  # a virtual environment's folder does, too
        environment, _ = build(replace(FAKE, framework="pytest", requires=("PyTest",)), given=given)
        assert environment.kind == "given"
        assert environment.python.parent == Path(sys.prefix, "bin")
        assert environment.framework_version == pytest.__version__


def test_a_given_interpreter_that_lacks_something_says_what_and_how_to_get_it():
    error = failure(replace(FAKE, requires=(NOWHERE, "pytest<1")), given=Path(sys.executable))
    assert error.context.splitlines() == [
        f"it has no {NOWHERE}, fake needs {NOWHERE}",
        f"it has pytest {pytest.__version__}, fake needs pytest<1",
    ]
    assert f"{sys.executable} -m pip install '{NOWHERE}' 'pytest<1'" in error.hint


def test_a_given_interpreter_of_another_version_is_refused(tmp_path):
    answer = json.dumps({"version": "2.7.18", "base": "/python2", "versions": {}, "folders": []})
    error = failure(given=script(tmp_path / "python", f"echo '{answer}'"))
    assert error.context == "it is Python 2.7.18, fake needs >=3.9"
    assert "pip install" not in error.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [("echo hello", "does not answer as a Python"), ("echo broken >&2; exit 3", "broken"), ("exit 3", "exits with 3")],
)
def test_a_given_interpreter_has_to_be_python(tmp_path, text, words):
    error = failure(given=script(tmp_path / "python", text))
    assert "is not a Python interpreter that works" in error.message
    assert words in error.context


def test_a_given_interpreter_has_to_exist_and_to_be_executable(tmp_path):
    (tmp_path / "python").write_text("")
    assert "there is no interpreter" in failure(given=tmp_path / "nothing").message
    assert "not executable" in failure(given=tmp_path / "python").message


# --- isolated environments


def test_builds_once_and_then_starts_no_process(monkeypatch, cache):
    built, lines = build()
    assert built.kind == "built"
    assert built.folder.parent == cache
    assert lines[0] == f"fake: building an isolated environment with Python {built.python_version}, once"
    assert lines[-1].startswith("fake: ready after ")
    assert subprocess.check_output([built.python, "-c", "import sys; print(sys.prefix)"], text=True).strip() == str(
        built.folder
    )
    monkeypatch.setattr(subprocess, "run", no_build)
    assert build() == (built, [])
    assert not [left for left in cache.iterdir() if left.is_dir() and left != built.folder]


def test_another_manifest_gets_another_environment():
    assert build()[0].folder != build(replace(FAKE, probe="import os"))[0].folder


@pytest.mark.parametrize("how", ["record", "garbage", "interpreter", "base", "distribution"])
def test_a_broken_environment_is_told_and_repaired(how):
    environment, _ = build()
    record = environment.folder / environments.RECORD
    content = json.loads(record.read_text())
    if how == "record":
        record.unlink()
    elif how == "garbage":
        record.write_text("{")
    elif how == "interpreter":
        environment.python.unlink()
    elif how == "base":
        record.write_text(json.dumps({**content, "base": "/gone/python"}))
    else:
        record.write_text(json.dumps({**content, "distributions": ["lib/gone.dist-info"]}))
    problem = health_problem(environment)
    assert problem is not None
    assert examine(FAKE, given=None, deep=True).problem == problem
    repaired, lines = build()
    assert lines[0] == f"fake: repairing its environment: {problem}"
    assert (repaired.folder, health_problem(repaired)) == (environment.folder, None)


def test_rebuild_and_remove(cache):
    environment, _ = build()
    (environment.folder / "mark").touch()
    rebuilt, lines = build(rebuild=True)
    assert lines
    assert not (rebuilt.folder / "mark").exists()
    (cache / "fake-other-thing").mkdir()
    assert remove(FAKE) == [rebuilt.folder]
    assert (cache / "fake-other-thing").exists()
    assert examine(FAKE, given=None, deep=False).problem == "it is not built yet"


def test_two_threads_build_one_environment():
    with ThreadPoolExecutor(2) as pool:
        runs = [run.result() for run in [pool.submit(build) for _ in range(2)]]
    assert runs[0][0] == runs[1][0]
    assert sorted("waiting" in " ".join(lines) for _, lines in runs) == [False, True]
    assert sum("once" in " ".join(lines) for _, lines in runs) == 1


def test_two_processes_build_one_environment_even_without_locks(tmp_path):
    program = tmp_path / "build.py"
    program.write_text(
        "import fcntl, sys\n"
        "def flock(*_): raise OSError('no locks available')\n"
        "fcntl.flock = flock\n"
        "from pathlib import Path\n"
        "from gradcheck.catalog import Backend\n"
        "from gradcheck.environments import resolve\n"
        "probe = 'import time; time.sleep(.5)'\n"
        f"fake = Backend('fake', '{NOWHERE}', Path('/'), '>=3.9', ('{NOWHERE}',), {{}}, probe=probe)\n"
        "print(resolve(fake, given=None, offline=False).python)\n"
    )
    runs = [subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert said[0] == said[1]
    assert Path(said[0]).exists()


def test_what_a_killed_build_left_is_removed(cache):
    environment, _ = build()
    left = cache / f".{environment.folder.name}-left"
    left.mkdir()
    build(rebuild=True)
    assert not left.exists()


def test_an_interrupted_build_leaves_nothing(monkeypatch, cache):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(environments, "run_probe", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert not [left for left in cache.iterdir() if left.is_dir()]


def test_a_framework_that_does_not_start_is_no_environment(cache):
    error = failure(replace(FAKE, probe="raise SystemExit('no libfake.so')"))
    assert (error.message, error.context) == (f"{NOWHERE} was installed but does not start", "no libfake.so")
    assert not [left for left in cache.iterdir() if left.is_dir()]


@pytest.mark.parametrize("offline", [True, False])
def test_what_cannot_be_downloaded_is_one_clear_error(tmp_path, monkeypatch, offline):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    error = failure(replace(FAKE, pins=(f"{NOWHERE}==1.0",)), offline=offline)
    assert ("--offline forbids" in error.message) == offline
    assert NOWHERE in error.context
    assert "--python fake=PATH" in error.hint
    assert "gradcheck doctor fake" in error.hint


def test_a_cache_that_cannot_be_written_names_the_variable_that_helps(cache):
    cache.parent.write_text("a file in place of the folder")
    error = failure()
    assert str(cache) in error.message
    assert "GRADCHECK_CACHE" in error.hint


def test_doctor_runs_the_probe_only_if_asked():
    build()
    assert examine(FAKE, given=None, deep=False).probe == ""
    deep = examine(FAKE, given=None, deep=True)
    assert (deep.kind, deep.probe, deep.problem) == ("built", "ok", None)
    assert NOWHERE in deep.why


def test_doctor_examines_a_given_interpreter(tmp_path):
    given = examine(FAKE, given=tmp_path / "nothing", deep=True)
    assert (given.kind, given.environment) == ("given", None)
    assert "there is no interpreter" in given.problem
    fine = replace(FAKE, framework="pytest", requires=("pytest",), probe="import not_there")
    failing = examine(fine, given=Path(sys.executable), deep=True)
    assert failing.problem == "its probe fails"
    assert "ModuleNotFoundError" in failing.probe


# --- interpreters to build from


def pretend(path: Path, version: str) -> Path:
    answer = json.dumps({"version": version, "base": str(path), "versions": {}, "folders": []})
    path.parent.mkdir(parents=True, exist_ok=True)
    return script(path, f"echo '{answer}'")


@pytest.fixture
def search(tmp_path, monkeypatch) -> Path:
    """Only what a test lays out is searched."""
    monkeypatch.setattr(interpreters, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv-pythons"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}:/usr/bin/nothing")
    return tmp_path


OLD = replace(FAKE, python=">=3.5,<3.8")


def test_the_newest_interpreter_that_starts_is_taken(search):
    script(search / "python3.7", "exit 127")  # not on PATH
    (search / "one").mkdir()
    script(search / "one" / "python3.7", "exit 127")  # a shim that leads nowhere
    pretend(search / "one" / "python3.9", "3.9.1")
    older = pretend(search / "two" / "python3.6", "3.6.9")
    assert interpreters._installed(OLD).path == older
    newer = pretend(search / "pyenv" / "versions" / "3.7.16" / "bin" / "python3.7", "3.7.16")
    assert interpreters._installed(OLD).path == newer


def test_interpreters_of_uv_are_found(search):
    managed = pretend(search / "uv-pythons" / "cpython-3.7.9-x" / "bin" / "python3.7", "3.7.9")
    assert interpreters._installed(OLD).path == managed


@pytest.mark.parametrize("offline", [True, False])
def test_no_interpreter_that_fits_is_one_clear_error(search, monkeypatch, offline):
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    error = failure(OLD, offline=offline)
    assert "fake needs Python >=3.5,<3.8, which is not on this machine" in error.message
    assert "uv python install" in error.hint


def test_one_built_from_another_interpreter_is_found_without_asking_around(monkeypatch, cache):
    built, _ = build()
    monkeypatch.setattr(interpreters, "_running_version", lambda: "3.8.0")
    monkeypatch.setattr(subprocess, "run", no_build)
    assert build()[0] == built


# --- for real


@pytest.mark.backend
def test_the_numpy_backend_is_built_for_real():
    backend, _ = load_backends()["unroll"]
    environment, _ = build(backend)
    assert {f"{name}=={version}" for name, version in environment.versions.items()} == set(backend.pins)
    assert examine(backend, given=None, deep=True).probe == "ok"
    assert health_problem(environment) is None
    assert build(backend, given=environment.folder)[0].framework_version == environment.framework_version
