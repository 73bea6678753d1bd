"""gradcheck beside the gradient checkers of torch, JAX, SciPy and numdifftools: one model, one command, one run.

    python benchmarks/peers.py [--seeds 8] [--alarms 4] [--limit 60] [--json FILE] [--markdown FILE]

The model, an RNN with a latent that feeds its carry, stands in peers/measure.py, which runs one checker per process in an
environment of its own (peers-requirements.txt), built on first use. A benchmark and no test: it exits with 0 either way.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import platformdirs
import psutil
from rich.console import Console
from rich.table import Table

from gradcheck import __version__

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PINS = HERE / "peers-requirements.txt"
MEASURE = HERE / "peers" / "measure.py"
SIZES = (728, 6_000, 20_000, 1_000_000)
CHECKERS = {  # as measured: as shown
    "torch slow": "torch gradcheck, slow",
    "torch fast": "torch gradcheck, fast",
    "jax": "JAX check_grads",
    "scipy": "SciPy check_grad",
    "numdifftools": "numdifftools Gradient",
    "gradcheck torch": "**gradcheck**, torch",
    "gradcheck jax": "**gradcheck**, JAX",
    "gradcheck numpy": "**gradcheck**, autograd",
}
ERRORS = ("entry x1.01", "entry x1.001", "matrix x1.001", "zeroed at 1e-5", "float32 entry x1.01")
CORRECT = ("default", "weights x3", "T = 40", "float32", "relu", "loss x1e-5", "offset 1e8")
TARGET = 50  # times faster than torch's slow mode at P = 20 000, of issue 3
NOTES = (
    "All on one thread, float64 unless said. Seconds leave out importing and compiling the model itself; values are forward "
    "evaluations, reverse passes apart. Peak memory is what a passing check adds to its process.",
    "“—”: not done. “over N s”: stopped. “not tried”: its values grow with P, and a smaller size says that it would not finish "
    "within twice the limit, or did not finish itself. “time limit”: fewer cases were run than were planned.",
    "“entry”: the very entry that was planted is named; “tensor”: its tensor only; “missed”: called right.",
    "The entry errors sit in W_h, at or above its median gradient, one model and another entry each; “zeroed at 1e-5” is the "
    "loss x1e-5 with the whole gradient of W_h set to 0. gradcheck is run in process, without the diagnosis that follows.",
    "SciPy and numdifftools return numbers and no verdict: an error above 1e-5 of the gradient's norm (SciPy), or of an entry "
    "plus 1e-8 of the largest (numdifftools), counts as found here. Whoever calls numdifftools finds the entry by an argmax "
    "of their own. They step in float64, so that a float32 case is none of theirs.",
    "torch calls correct float32 code wrong (third table), so that finding an error in such code says nothing of it: “—”.",
    "JAX compiles its own operations anew for every shape: that is in its passing seconds, not in its failing ones.",
    "pytensor.gradient.verify_grad is left out: the model is not written in PyTensor here.",
)


@dataclass
class Job:
    """One process. lines: what it has said; ended: "" if it finished, else why not."""

    checker: str
    task: dict[str, Any]
    lines: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""

    def of(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        return [x for x in self.lines if x["kind"] == kind and (name is None or x["name"] == name)]


# --- running ----------------------------------------------------------------------------------------------------------


def environment(say: Any) -> Path:
    """The interpreter that has all the checkers; built with venv and pip on first use."""
    digest = hashlib.blake2b(PINS.read_bytes() + sys.version.encode(), digest_size=6).hexdigest()
    folder = platformdirs.user_cache_path("gradcheck-benchmarks", appauthor=False) / f"peers-{digest}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "complete").exists():
        say(f"building {folder}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(PINS)]
        built = subprocess.run(install, capture_output=True, text=True)
        if built.returncode:
            raise click.ClickException(f"pip could not build {folder}:\n{built.stderr[-2000:]}")
        (folder / "complete").touch()
    return python


def run(job: Job, python: Path, per_check: float, whole: float) -> None:
    """Read a process's lines until it ends; stop it when one check takes longer than `per_check`, or all more than `whole`."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    threads["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    command = [str(python), str(MEASURE), job.checker, json.dumps(job.task)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | threads | {"JAX_PLATFORMS": "cpu"},
    )
    said: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []

    def read() -> None:
        for line in process.stdout or ():
            said.put(line)
        said.put(None)

    readers = [
        threading.Thread(target=read, daemon=True),
        threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True),
    ]
    for reader in readers:
        reader.start()
    end = time.perf_counter() + whole
    try:
        while True:
            left = end - time.perf_counter()
            line = said.get(timeout=max(0.01, min(per_check, left)))
            if line is None:
                break
            job.lines.append(json.loads(line))
    except queue.Empty:
        job.ended = f"over {per_check if left > per_check else whole:g} s"
        process.kill()
    process.wait()
    for reader in readers:
        reader.join(timeout=5)
    if process.returncode and not job.ended:
        job.ended = "failed: " + (errors[-1].strip() if errors else f"exit code {process.returncode}")


def jobs(checkers: Sequence[str], sizes: Sequence[int], seeds: int, alarms: int) -> tuple[list[Job], list[Job]]:
    """(those that are timed, those that only count)."""
    timed = [Job(checker, {"stage": "cost", "size": size}) for size in sizes for checker in checkers]
    counted = [Job(checker, {"stage": "errors", "seeds": seeds}) for checker in checkers if seeds]
    return timed, counted + [Job(checker, {"stage": "correct", "alarms": alarms}) for checker in checkers if alarms]


def hopeless(job: Job, done: Sequence[Job], limit: float) -> bool:
    """Whether a smaller size did not finish, or took so long that this one, its values growing with P, cannot."""
    before = [j for j in done if j.checker == job.checker and j.task["stage"] == "cost"]
    if not before:
        return False
    passing, size = before[-1].of("passing"), before[-1].task["size"]
    if not passing:
        return True
    return passing[0]["values"] > size and passing[0]["seconds"] * job.task["size"] / size > 2 * limit


# --- what is said -----------------------------------------------------------------------------------------------------


def number(x: float) -> str:
    return f"{x:,.0f}".replace(",", " ") if x >= 100 or isinstance(x, int) else f"{x:.1f}" if x >= 10 else f"{x:.2g}"


def located(result: dict[str, Any]) -> str:
    if result["verdict"] != "wrong":
        return "missed" if result["verdict"] == "pass" else "refused"
    return (
        "entry"
        if result["named"]
        else "wrong entry"
        if result.get("entry")
        else "tensor"
        if result.get("where")
        else "no place"
    )


def cost_rows(done: Sequence[Job]) -> list[list[str]]:
    """P, checker, values passing, values failing and place, seconds passing, failing, peak MB."""
    rows = []
    for job in done:
        if job.task["stage"] != "cost":
            continue
        row = [number(job.task["size"]), CHECKERS[job.checker]]
        passing, failing = job.of("passing"), job.of("failing")
        ended = job.ended or "—"
        if passing:
            good = passing[0]
            verdict = {"pass": "", "wrong": " (false alarm)", "refused": " (refused)"}[good["verdict"]]
            row += [number(good["values"]) + verdict]
        else:
            row += [ended]
        row += [f"{number(failing[0]['values'])}, {located(failing[0])}" if failing else ended if passing else "—"]
        row += [number(x[0]["seconds"]) if x else "—" for x in (passing, failing)]
        row += [number(max(0.1, passing[0]["peak_mb"])) if passing else "—"]
        rows.append(row)
    return rows


def count(lines: Sequence[dict[str, Any]], planned: int) -> str:
    """How many were called wrong of how many were run, and how many the checker declined to judge."""
    if not lines:
        return "—"
    wrong = sum(x["verdict"] == "wrong" for x in lines)
    refused = sum(x["verdict"] == "refused" for x in lines)
    short = " (time limit)" if len(lines) < planned else ""
    return f"{wrong} of {len(lines)}" + (f", {refused} refused" if refused else "") + short


def power_rows(done: Sequence[Job], kind: str, names: Sequence[str]) -> list[list[str]]:
    rows = []
    for job in done:
        if job.task["stage"] == {"error": "errors", "correct": "correct"}[kind]:
            planned = job.task["seeds" if kind == "error" else "alarms"]
            row = [CHECKERS[job.checker], *(count(job.of(kind, name), planned) for name in names)]
            if kind == "error":
                found = [x for x in job.of("error") if "entry" in x["name"] and x["verdict"] == "wrong"]
                row.append(f"{sum(x['named'] for x in found)} of {len(found)}" if found else "—")
            rows.append(row)
    return rows


def tables(done: Sequence[Job]) -> list[tuple[str, list[str], list[list[str]]]]:
    head = ["P", "checker", "values, passing", "values, failing: what it names", "s, passing", "s, failing", "peak MB"]
    found = ["checker", *ERRORS, "entry named"]
    result = [("Cost", head, cost_rows(done))]
    result.append(("Planted errors called wrong, P = 728", found, power_rows(done, "error", ERRORS)))
    result.append(
        (
            "False alarms: correct cases called wrong, P = 728",
            ["checker", *CORRECT],
            power_rows(done, "correct", CORRECT),
        )
    )
    return [table for table in result if table[2]]


def against_torch(done: Sequence[Job]) -> list[str]:
    """How much faster than torch's slow mode gradcheck is on torch's own model, size by size."""
    runs = {(j.checker, j.task.get("size")): j for j in done}
    lines = []
    for size in SIZES:
        slow, ours = runs.get(("torch slow", size)), runs.get(("gradcheck torch", size))
        if not slow or not ours or not ours.of("passing"):
            continue
        if slow.of("passing"):
            seconds, words = slow.of("passing")[0]["seconds"], ""
        elif stopped := re.fullmatch(r"over (\S+) s", slow.ended):
            seconds, words = float(stopped[1]), "more than "
        else:
            continue
        times = seconds / ours.of("passing")[0]["seconds"]
        told = "reached" if times >= TARGET else "not known" if words else "not reached"
        goal = f", target {TARGET}: {told}" if size == 20_000 else ""
        lines.append(
            f"P = {number(size)}: gradcheck on torch is {words}{number(times)} times as fast as torch's slow mode{goal}."
        )
    return lines


def about() -> dict[str, Any]:
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)$", PINS.read_text(), re.M))
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "system": platform.platform(),
        "cpu": next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine()),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "gradcheck": __version__,
        "versions": {n: versions[n] for n in ("torch", "jax", "scipy", "numdifftools", "autograd", "numpy")},
    }


def machine_line(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['date']}; {facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}; load average "
        f"before {facts['load_before']}; Python {facts['python']}, gradcheck {facts['gradcheck']}, {versions}."
    )


def markdown(facts: dict[str, Any], done: Sequence[Job]) -> str:
    parts = [machine_line(facts), ""]
    for title, head, rows in tables(done):
        parts += [f"{title}:", "", "| " + " | ".join(head) + " |", "|" + "-|" * len(head)]
        parts += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    parts += [*(f"- {line}" for line in (*against_torch(done), *NOTES))]
    return "\n".join(parts) + "\n"


def show(console: Console, facts: dict[str, Any], done: Sequence[Job]) -> None:
    console.print(machine_line(facts), "")
    for title, head, rows in tables(done):
        table = Table(*head, box=None, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(cell.replace("*", "") for cell in row))
        console.print(table, "")
    for line in (*against_torch(done), *NOTES):
        console.print(f"- {line}", markup=False)


@click.command()
@click.option("--seeds", type=click.IntRange(min=0), default=8, show_default=True, help="Models per planted error.")
@click.option("--alarms", type=click.IntRange(min=0), default=4, show_default=True, help="Models per correct case.")
@click.option("--size", "sizes", type=click.Choice(SIZES), multiple=True, default=SIZES, help="Parameters; repeatable.")
@click.option("--only", type=click.Choice(list(CHECKERS)), multiple=True, help="Checkers; repeatable.  [default: all]")
@click.option(
    "--limit", type=float, default=60.0, show_default=True, help="Seconds for one check; x1.5 for all counts."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write all that was measured to FILE.")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path), help="Also write the tables to FILE.")
def main(
    seeds: int,
    alarms: int,
    sizes: tuple[int, ...],
    only: tuple[str, ...],
    limit: float,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Measure gradcheck beside other gradient checkers."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)

    def say(line: str) -> None:
        click.echo(line, err=True)

    python = environment(say)
    facts, done, started = about(), list[Job](), time.perf_counter()

    def finished(job: Job) -> None:
        done.append(job)
        facts["seconds"] = round(time.perf_counter() - started, 1)
        say(f"{facts['seconds']:6.1f} s  {job.checker} {job.task}: {job.ended or 'done'}")
        if json_file:
            measured = [{"checker": j.checker, "task": j.task, "ended": j.ended, "lines": j.lines} for j in done]
            json_file.write_text(json.dumps({"machine": facts, "measured": measured}, indent=1) + "\n")
        if markdown_file:
            markdown_file.write_text(markdown(facts, done))

    def counting(job: Job) -> Job:
        run(job, python, limit, 1.5 * limit)
        return job

    timed, counted = jobs([c for c in CHECKERS if c in only or not only], sizes, seeds, alarms)
    for job in timed:
        if hopeless(job, done, limit):
            job.ended = "not tried"
        else:
            run(job, python, limit, 3 * limit)
        finished(job)
    with ThreadPoolExecutor(2) as pool:  # these are not timed
        for job in pool.map(counting, counted):
            finished(job)
    show(console, facts, done)
    console.print(f"measured in {facts['seconds']:.0f} s")


if __name__ == "__main__":
    main()
