"""One long-lived process per interpreter and process settings, shared by a framework's rollouts.

Transport is execnet, which needs nothing installed in the worker. A worker that crashes, hangs or grows too large is
killed and reported; the next job starts a fresh one. Its stdout and stderr go to a log, which a failure quotes.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import execnet
import psutil

from gradcheck.catalog import Backend
from gradcheck.environments import Environment
from gradcheck.errors import BackendError

# SIGINT is for the core: an ignored signal stays ignored across exec, and Python leaves it so
WRAPPER = 'trap \'\' INT; log=$1; shift; exec "$@" 2>>"$log"'

BOOTSTRAP = """
import os, sys, importlib.util
setup = channel.receive()
os.environ.update(setup["env"])
os.dup2(2, 1)  # what the model prints goes to the log, too
sys.path[:] = [entry for entry in sys.path if entry not in ("", ".")]
spec = importlib.util.spec_from_file_location(
    "gradcheck_worker", setup["package"] + "/__init__.py", submodule_search_locations=[setup["package"]])
sys.modules["gradcheck_worker"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from gradcheck_worker.serve import run
run(channel, setup["adapter"])
"""

LOG_LINES = 8  # quoted in a failure
START_SECONDS = 120.0  # importing a framework is not the user's job: a short --timeout does not hold for it


@dataclass
class Limits:
    """timeout: seconds for one job; memory: GB of resident memory per worker, None for no limit."""

    timeout: float = 300.0
    memory: float | None = None


@dataclass
class Worker:
    """The process of one backend under one set of process settings. Not thread-safe: one thread owns it."""

    backend: Backend
    environment: Environment | None  # set before the first job
    settings: dict[str, Any]
    log: Path
    limits: Limits
    facts: dict[str, Any] = field(default_factory=dict)
    starts: int = 0
    deadline: float | None = None  # in time.monotonic: jobs end by then, however much time each has by itself
    _group: execnet.Group | None = None
    _channel: Any = None
    _process: psutil.Process | None = None
    _killed_for: str = ""
    closed: bool = False

    def start(self) -> dict[str, Any]:
        """Start the process if there is none and import the framework. Returns its facts (framework_version, python)."""
        if self._channel is None:
            self._spawn()
            self.facts = self._call("start", {"settings": self.settings})
        return self.facts

    def call(self, operation: str, **job: Any) -> dict[str, Any]:
        """Run one job. Raises BackendError GC902 (crash), 903 (timeout), 904 (memory) or 905 (exception in the step)."""
        self.start()
        return self._call(operation, job)

    @property
    def alive(self) -> bool:
        return self._channel is not None

    def _spawn(self) -> None:
        assert self.environment is not None, "a worker needs its environment before its first job"
        if self.closed:
            raise BackendError("the run was ended", code="GC902")
        self._killed_for = ""
        self.starts += 1
        command = ["/bin/sh", "-c", WRAPPER, "sh", str(self.log), str(self.environment.python)]
        spec = execnet.XSpec("popen//id=worker")
        spec.python = shlex.join(command)  # set, not parsed: a path may hold what a spec string cannot
        self._group = execnet.Group()
        try:
            gateway: Any = self._group.makegateway(spec)
            self._process = psutil.Process(gateway._io.popen.pid)
            self._channel = gateway.remote_exec(BOOTSTRAP)
            worker_package = files("gradcheck._backends") / "_worker"
            setup = {
                "package": str(worker_package),
                "adapter": str(self.backend.folder / "adapter.py"),
                "env": dict(self.backend.env),
            }
            self._channel.send(setup)
        except (OSError, EOFError, AssertionError, psutil.Error) as error:
            self.kill()
            raise BackendError(
                f"cannot start {self.backend.name}'s interpreter {self.environment.python}",
                context=self.quoted_log() or str(error),
                note="your model was not run",
                hint=f"gradcheck doctor {self.backend.name}",
                code="GC901",
            ) from error

    def _call(self, operation: str, job: dict[str, Any]) -> dict[str, Any]:
        channel = self._channel  # the run's end may take it away meanwhile
        limit = max(self.limits.timeout, START_SECONDS) if operation == "start" else self.limits.timeout
        if self.deadline is not None:
            limit = min(limit, max(self.deadline - time.monotonic(), 0.1))
        with self._memory_watch():
            try:
                channel.send({"op": operation, **job})
                answer = channel.receive(limit)
            except channel.TimeoutError:
                self.kill()
                option = "--timeout" if self.deadline is None else "--diagnose-seconds"
                raise self._failure(
                    "GC903", f"no answer within {limit:.3g} s", f"raise {option}, or look for a loop that does not end"
                ) from None
            except channel.RemoteError as error:  # even telling what went wrong failed
                self.kill()
                last = str(error).strip().rpartition("\n")[2]
                raise self._failure("GC902", f"the process could not answer: {last}", "see its log") from None
            except (EOFError, OSError) as error:
                raise self._gone(operation) from error
        if "ok" in answer:
            result: dict[str, Any] = answer["ok"]
            return result
        raise self._from_worker(operation, answer["error"])

    def _gone(self, operation: str) -> BackendError:
        status = self._exit_status()
        self.kill()
        if self._killed_for == "memory":
            return self._failure(
                "GC904",
                f"grew beyond {self.limits.memory:g} GB and was stopped",
                "raise --memory, or make the case smaller",
            )
        if operation == "start":
            return self._failure(
                "GC901", f"the interpreter stopped while it started{status}", f"gradcheck doctor {self.backend.name}"
            )
        return self._failure("GC902", f"the process died{status}", "the log above is all that it left behind")

    def _failure(self, code: str, message: str, hint: str) -> BackendError:
        return BackendError(
            message, context=self.quoted_log(), note="other backends and cases still run", hint=hint, code=code
        )

    def _from_worker(self, operation: str, error: dict[str, Any]) -> BackendError:
        code = "GC901" if operation == "start" else "GC905"
        failure = BackendError(error["message"], code=code, note="other backends and cases still run")
        if operation == "start":
            failure.hint = f"gradcheck doctor {self.backend.name} --rebuild"
        if error["place"]:
            path, line = error["place"]
            failure.context = f"{path}:{line}"
        return failure

    def _exit_status(self) -> str:
        if self._process is None:
            return ""
        with contextlib.suppress(psutil.Error):
            status = self._process.wait(timeout=2)
            if status is not None:
                return f" (signal {-status})" if status < 0 else f" (exit status {status})"
        return ""

    def quoted_log(self) -> str:
        """The log's last lines, for a failure report."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").rstrip().splitlines()
        return "\n".join(lines[-LOG_LINES:])

    @contextlib.contextmanager
    def _memory_watch(self) -> Any:
        """Kill the process if its resident memory passes the limit while a job runs."""
        if self.limits.memory is None:
            yield
            return
        limit = self.limits.memory * 1e9
        done = threading.Event()

        def watch() -> None:
            assert self._process is not None
            while not done.wait(0.1):
                with contextlib.suppress(psutil.Error):
                    if self._process.memory_info().rss > limit:
                        self._killed_for = "memory"
                        self._process.kill()
                        return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def kill(self) -> None:
        """End the process and its children at once; the next job starts anew."""
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                for process in [*self._process.children(recursive=True), self._process]:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
        if self._group is not None:
            with contextlib.suppress(Exception):
                self._group.terminate(timeout=1.0)
        self._group = self._channel = self._process = None

    def close(self) -> None:
        """End the process for good."""
        self.closed = True
        self.kill()
