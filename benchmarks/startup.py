"""What `gradcheck run` costs beyond the frameworks themselves; see README.md beside this file.

    python benchmarks/startup.py [--rounds 5] [--many 50] [--json FILE]

A benchmark and no test: it says whether the target is reached and exits with 0 either way.
"""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from gradcheck import __version__
from gradcheck.case_file import load
from gradcheck.catalog import load_backends
from gradcheck.environments import Environment, resolve

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CASE = ROOT / "cases" / "rnn_vae.yaml"
FIVE = ("theano-scan", "theano-unroll", "jax-scan", "jax-unroll", "unroll")
MANY_ON = ("jax-scan", "theano-scan", "unroll")
BARE = ("theano", "jax", "numpy")  # backends with a script bare/<name>_rnn_vae.py
TARGET = 1.5  # gradcheck / slowest bare script, of issue 2
FLAT = 1.10  # memory of the last quarter / first quarter that still counts as flat
LIMIT = 900  # seconds for any one command
SAMPLE_SECONDS = 0.02


@dataclass
class Timing:
    """One command's runs. seconds: wall; cpu: user and system of it and its children, which other load disturbs less."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass
class Many:
    """One run over copies of a small case. rss: core's resident MB when case k was awaited; starts: worker processes."""

    cases: int
    exit_code: int
    seconds: float
    first_case: float
    rss: list[float]
    starts: dict[str, int]

    def quarter(self, which: int) -> float:
        """Mean MB of the run's first (0) or last (3) quarter."""
        size = max(1, len(self.rss) // 4)
        return statistics.fmean(self.rss[:size] if which == 0 else self.rss[-size:])


class NotMeasured(Exception):
    """Something did not run as it must, so that its time would mean nothing."""


# --- the commands -----------------------------------------------------------------------------------------------------


def environments(say: Any) -> dict[str, Environment]:
    """The interpreters that gradcheck itself runs the frameworks in, built if need be."""
    backends = {backend.name: backend for backend, _ in load_backends().values()}
    return {name: resolve(backends[name], given=None, offline=False, progress=say) for name in BARE}


def gradcheck() -> str:
    beside = Path(sys.executable).with_name("gradcheck")
    found = str(beside) if beside.exists() else shutil.which("gradcheck")
    if not found:
        raise NotMeasured("there is no gradcheck command beside this interpreter or on PATH")
    return found


def run_command(paths: Sequence[Path], backends: Sequence[str], *more: str) -> list[str]:
    return [gradcheck(), "run", *map(str, paths), *(word for name in backends for word in ("-b", name)), *more]


def timed(timing: Timing) -> str:
    """Run once, add its times, return its stdout. Raises NotMeasured unless it exits with 0."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(timing.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        timing.seconds.append(time.perf_counter() - started)
        timing.cpu.append(usage.ru_utime + usage.ru_stime)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            err.seek(0)
            tail = "\n".join(err.read().splitlines()[-5:])
            raise NotMeasured(f"{timing.name} exits with {process.returncode}\n{tail}")
        out.seek(0)
        return out.read()


# --- one case: gradcheck against the bare scripts ---------------------------------------------------------------------


def side_by_side(rounds: int, found: dict[str, Environment], say: Any) -> list[Timing]:
    """gradcheck first, then the bare scripts, interleaved; a first round, which checks that they do the same, is not timed."""
    ours = Timing("gradcheck run", run_command([CASE], FIVE))
    bare = [
        Timing(f"bare {name}", [str(found[name].python), str(HERE / "bare" / f"{name}_rnn_vae.py")]) for name in BARE
    ]
    say("warm-up: every command once")
    check_ours(Timing(ours.name, [*ours.command, "--json", "-"]))
    check_bare([json.loads(timed(Timing(t.name, t.command))) for t in bare])
    for i in range(rounds):
        for timing in (ours, *bare):
            timed(timing)
            say(f"round {i + 1}/{rounds}: {timing.name} {timing.seconds[-1]:.2f} s")
    return [ours, *bare]


def check_ours(timing: Timing) -> None:
    verdicts = [check["verdict"] for case in json.loads(timed(timing))["cases"] for check in case["checks"]]
    wanted = len(FIVE) * sum(len(o.wrt) for o in load(CASE).objectives)
    if verdicts != ["pass"] * wanted:
        raise NotMeasured(f"gradcheck passed {verdicts.count('pass')} of {wanted} checks of {CASE.name}")


def check_bare(results: Sequence[dict[str, Any]]) -> None:
    """All bare rollouts must agree with each other, and differentiate the objectives by the inputs that the case names."""
    wanted = {o.name: set(o.wrt) for o in load(CASE).objectives}
    rollouts = [rollout for result in results for rollout in result.values()]
    for rollout in rollouts:
        if {name: set(o["norms"]) for name, o in rollout.items()} != wanted:
            raise NotMeasured(f"a bare script does not differentiate what {CASE.name} does")
        for name, objective in rollout.items():
            first = rollouts[0][name]
            pairs = [(objective["value"], first["value"])]
            pairs += [(objective["norms"][n], first["norms"][n]) for n in first["norms"]]
            if not all(np.isclose(one, other, rtol=1e-8, atol=0) for one, other in pairs):
                raise NotMeasured(f"the bare scripts disagree on {name}: they are not the same model")


# --- many cases in one run --------------------------------------------------------------------------------------------


def many(count: int, found: dict[str, Environment]) -> Many:
    """Run copies of a small case in one process. Its progress line, on a terminal of its own, tells which case is awaited."""
    template = (HERE / "small" / "tiny_rnn.yaml").read_text()
    with tempfile.TemporaryDirectory(prefix="gradcheck-many-") as folder:
        shutil.copy(HERE / "small" / "tiny_rnn.py", folder)
        for i in range(count):
            text = template.replace("name: tiny-rnn", f"name: tiny-rnn-{i:03}").replace("seed: 0", f"seed: {i}")
            Path(folder, f"tiny_rnn_{i:03}.yaml").write_text(text)
        with on_terminal(run_command([Path(folder)], MANY_ON)) as (process, seen):
            return sampled(process, seen, count, found)


@contextmanager
def on_terminal(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A process whose stderr is a terminal, and the numbers of the cases that its progress line has shown so far."""
    ours, theirs = pty.openpty()
    seen = [0]

    def read() -> None:
        tail = ""
        while True:
            try:
                tail = tail[-40:] + os.read(ours, 4096).decode(errors="replace")
            except OSError:  # how Linux says that the other end is closed
                return
            seen.extend(int(k) for k in re.findall(r"\[(\d+)/\d+\]", tail) if int(k) > seen[-1])

    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=terminal_variables()
    )
    os.close(theirs)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process, seen
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(timeout=5)
        os.close(ours)


def terminal_variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("CI", "TTY_COMPATIBLE")} | {"TERM": "xterm"}


def sampled(process: subprocess.Popen[bytes], seen: Sequence[int], count: int, found: dict[str, Environment]) -> Many:
    """Watch a run until it ends: the core's memory at each new case, and every process that runs a framework's interpreter."""
    interpreters = {str(environment.python): name for name, environment in found.items()}
    core, started = psutil.Process(process.pid), time.perf_counter()
    workers: dict[int, str] = {}
    rss: list[float] = []
    first_case, last = 0.0, 0
    while process.poll() is None:
        if time.perf_counter() - started > LIMIT:
            raise NotMeasured(f"{count} cases took more than {LIMIT} s")
        try:
            for child in core.children(recursive=True):
                if child.pid not in workers and (name := interpreters.get((child.cmdline() or [""])[0])):
                    workers[child.pid] = name
            if (now := seen[-1]) > last:
                rss.append(core.memory_info().rss / 1e6)
                first_case = first_case or (time.perf_counter() - started if now > 1 else 0.0)
                last = now
        except psutil.Error:
            continue
        time.sleep(SAMPLE_SECONDS)
    starts = {name: list(workers.values()).count(name) for name in BARE}
    return Many(count, process.returncode, time.perf_counter() - started, first_case, rss, starts)


# --- what is said -----------------------------------------------------------------------------------------------------


def ratio(timings: Sequence[Timing]) -> tuple[Timing, float]:
    """(the slowest bare script, gradcheck's median over its)."""
    ours, *bare = timings
    slowest = max(bare, key=lambda timing: timing.median)
    return slowest, ours.median / slowest.median


def show_timings(console: Console, timings: Sequence[Timing]) -> None:
    table = Table("", "min s", "median s", "max s", "CPU s", box=None, title=f"{CASE.name}, all five backends, warm")
    for t in timings:
        numbers = (min(t.seconds), t.median, max(t.seconds), statistics.median(t.cpu))
        table.add_row(t.name, *(f"{x:.2f}" for x in numbers))
    console.print(table)
    slowest, times = ratio(timings)
    console.print(f"slowest bare script: {slowest.name.removeprefix('bare ')}, {slowest.median:.2f} s")
    console.print(f"gradcheck / slowest bare script: {times:.2f}, target {TARGET}: {reached(times <= TARGET)}")
    rounds = ", ".join(f"{one / other:.2f}" for one, other in zip(timings[0].seconds, slowest.seconds, strict=True))
    console.print(f"round by round: {rounds}\n")


def show_many(console: Console, many: Many) -> None:
    per_case = (many.seconds - many.first_case) / max(1, many.cases - 1)
    console.print(
        f"{many.cases} small cases on {', '.join(MANY_ON)} in one run: {many.seconds:.1f} s, exit {many.exit_code}; "
        f"the first after {many.first_case:.1f} s, then {per_case:.2f} s a case"
    )
    starts = ", ".join(f"{name} {n}" for name, n in many.starts.items())
    console.print(f"  worker processes started: {starts}; target 1 each: {reached(imported_once(many))}")
    if many.rss:
        first, last = many.quarter(0), many.quarter(3)
        console.print(
            f"  core's resident memory: first quarter {first:.1f} MB, last quarter {last:.1f} MB "
            f"(x{last / first:.2f}, {len(many.rss)} samples); target at most x{FLAT:.2f}: {reached(flat(many))}"
        )


def imported_once(many: Many) -> bool:
    return many.exit_code == 0 and set(many.starts.values()) == {1}


def flat(many: Many) -> bool:
    return many.exit_code == 0 and bool(many.rss) and many.quarter(3) <= FLAT * many.quarter(0)


def reached(yes: bool) -> str:
    return "reached" if yes else "not reached"


def machine(found: dict[str, Environment]) -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": [round(x, 2) for x in os.getloadavg()],
        "gradcheck": __version__,
        "python": platform.python_version(),
        "frameworks": {
            e.framework: {"version": e.framework_version, "python": e.python_version, "numpy": e.versions.get("numpy")}
            for e in found.values()
        },
    }


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine())


def show_machine(console: Console, about: dict[str, Any]) -> None:
    console.print(f"{about['system']}, {about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB")
    names = [f"{name} {f['version']} (Python {f['python']})" for name, f in about["frameworks"].items()]
    console.print(f"gradcheck {about['gradcheck']} (Python {about['python']}), {', '.join(names)}")
    load = about["load_before"][0]
    busy = " -- other programs keep the machine busy: wall times mean little" if load > 0.5 * about["cores"] else ""
    console.print(f"load average before: {load}{busy}\n")


def document(about: dict[str, Any], timings: Sequence[Timing] | None, cases: Many | None) -> dict[str, Any]:
    result: dict[str, Any] = {"machine": about}
    if timings:
        slowest, times = ratio(timings)
        result["one_case"] = {
            "case": CASE.name,
            "timings": [asdict(t) | {"median": t.median} for t in timings],
            "slowest_bare": slowest.name,
            "ratio": times,
            "target": TARGET,
            "reached": times <= TARGET,
        }
    if cases:
        result["many_cases"] = asdict(cases) | {"imported_once": imported_once(cases), "memory_flat": flat(cases)}
    return result


@click.command()
@click.option("--rounds", type=click.IntRange(min=0), default=5, show_default=True, help="Timed rounds; 0: leave out.")
@click.option("--many", "count", type=click.IntRange(min=0), default=50, show_default=True, help="Cases; 0: leave out.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write what was measured to FILE.")
def main(rounds: int, count: int, json_file: Path | None) -> None:
    """Measure what `gradcheck run` costs beyond the frameworks' own bare scripts."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

    def say(line: str) -> None:
        click.echo(line, err=True)

    timings, cases = None, None
    try:
        found = environments(say)
        about = machine(found)
        show_machine(console, about)
        if rounds:
            timings = side_by_side(rounds, found, say)
            show_timings(console, timings)
        if count:
            say(f"{count} small cases in one run")
            cases = many(count, found)
            show_many(console, cases)
    except NotMeasured as error:
        console.print(f"not measured: {error}", markup=False)
        return
    if json_file:
        json_file.write_text(json.dumps(document(about, timings, cases), indent=2) + "\n")


if __name__ == "__main__":
    main()
