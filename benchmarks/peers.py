"""gradcheck beside the gradient checkers of torch, JAX, PyTensor, SciPy and numdifftools: one model, one command, one run.

    python benchmarks/peers.py [--stage cost] [--seeds N] [--json FILE] [--markdown README.md]

The model, an RNN with a latent that feeds its carry, stands in peers/, where measure.py runs one checker per process in an
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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
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
MARKERS = ("<!-- peers -->\n", "<!-- /peers -->\n")
SIZES = (728, 6_000, 20_000, 1_000_000)


@dataclass(frozen=True)
class Checker:
    """title: as shown. errors, correct: models per planted error and per correct configuration, fewer for the slow ones."""

    title: str
    errors: int
    correct: int
    counterpart: str = ""  # gradcheck on the same framework, or on NumPy

    @property
    def ours(self) -> bool:
        return not self.counterpart


CHECKERS = {
    "torch slow": Checker("torch gradcheck, slow", 32, 8, "gradcheck torch"),
    "torch fast": Checker("torch gradcheck, fast", 32, 45, "gradcheck torch"),
    "jax": Checker("JAX check_grads", 32, 10, "gradcheck jax"),
    "pytensor": Checker("PyTensor verify_grad", 3, 1, "gradcheck numpy"),
    "scipy": Checker("SciPy check_grad", 32, 20, "gradcheck numpy"),
    "numdifftools": Checker("numdifftools Gradient", 4, 1, "gradcheck numpy"),
    "gradcheck torch": Checker("**gradcheck**, torch", 32, 45),
    "gradcheck jax": Checker("**gradcheck**, JAX", 10, 10),
    "gradcheck numpy": Checker("**gradcheck**, autograd", 32, 45),
}
ENTRIES = ("entry x1.01", "entry x1.001")
WHOLE = ("matrix x1.001", "zeroed at 1e-5")
FLOAT32 = ("float32 P = 728", "float32 P = 6 000", "float32 P = 20 000")
CHAOTIC = "float32 x3, T = 40"
ERRORS = (*ENTRIES, *WHOLE, *FLOAT32, CHAOTIC)
CORRECT = (
    "default",
    "weights x3",
    "T = 40",
    "weights x3, T = 40",
    "float32",
    "float32, x3, T = 40",
    "relu",
    "loss x1e-5",
    "offset 1e8",
    "noise",
)
CORRECT_TWIN = dict.fromkeys(FLOAT32, "float32") | {
    CHAOTIC: "float32, x3, T = 40",
    WHOLE[1]: "loss x1e-5",
}  # else default
MOST_VALUES, TIMES = 80, 50  # targets: values to name an entry; speed against torch's slow mode, both at P = 20 000
NOTES = (
    "One thread each; the timed part runs alone, the two tables of counts two at a time. Seconds leave out importing "
    "and compiling the model, except for PyTensor, which compiles inside its check (here without rewrites, under "
    "Python's linker). A check that is over within a second is done three times, and the median counts. Values are "
    "forward evaluations, reverse passes apart. MB: what a check adds to the peak memory of its process.",
    "“—”: not done. “over N s”: stopped. “not tried”: its values grow with P, and at the pace of a smaller size it "
    "would need more than twice the limit, or it did not finish there. “time limit”: fewer models were run than were "
    "planned.",
    "“entry”: the very entry that was planted is named; “tensor”: its tensor only. The wrong entries sit in W_h, each "
    "at or above the median size of its gradient, one model and another entry each. “zeroed at 1e-5” is the loss "
    "x1e-5 with the whole gradient of W_h set to 0, “float32” an entry x1.01 of a float32 gradient; “offset 1e8” is "
    "added to the loss; “noise” draws the latent's noise inside the model, from the same seed in every evaluation.",
    "gradcheck runs in process, as `gradcheck run` does on one backend up to the diagnosis of causes. It declines to "
    "judge what its reference cannot tell: “refused”. In the first table it has to name the entry; for the others it "
    "is enough to call the case wrong.",
    "SciPy and numdifftools return numbers and no verdict: an error above 1e-5 of the gradient's norm (SciPy), or of "
    "an entry plus 1e-8 of the largest (numdifftools), counts as found here, and whoever calls numdifftools finds the "
    "entry by an argmax of their own. They step in float64, so that float32 is none of theirs. torch calls correct "
    "float32 code wrong (last table), so that finding errors in it says nothing; PyTensor allows 1 % there: “—”.",
)


@dataclass
class Job:
    """One process. lines: what it has said; ended: "" if it finished, else why not. made_from: what the numbers hold for."""

    checker: str
    task: dict[str, Any]
    made_from: str = ""
    limit: float = 0.0
    date: str = ""
    ended: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stage(self) -> str:
        return str(self.task["stage"])

    def of(self, name: str) -> list[dict[str, Any]]:
        """The lines of a kind ("passing", "failing"), or of a planted error or configuration."""
        return [x for x in self.lines if x.get("name", x["kind"]) == name]


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


def jobs(stages: Sequence[str], checkers: Sequence[str], sizes: Sequence[int], seeds: int | None) -> list[Job]:
    """All that is asked for, the timed ones first and the sizes of a checker in ascending order."""
    asked = [Job(name, {"stage": "cost", "size": size}) for size in sizes for name in checkers if "cost" in stages]
    for stage in ("errors", "correct"):
        for name in checkers if stage in stages else ():
            planned = getattr(CHECKERS[name], stage)
            asked.append(Job(name, {"stage": stage, "seeds": planned if seeds is None else min(seeds, planned)}))
    return asked


def made_from(checker: str) -> str:
    """A digest of what a checker's numbers depend on: this benchmark and its pins; for gradcheck also its own code."""
    files = [PINS, *sorted((HERE / "peers").glob("*.py"))]
    if CHECKERS[checker].ours:
        files += sorted((ROOT / "gradcheck").rglob("*.py")) + sorted((ROOT / "backends" / "_worker").glob("*.py"))
    digest = hashlib.blake2b(digest_size=6)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def hopeless(job: Job, done: Sequence[Job], limit: float) -> bool:
    """Whether a smaller size did not finish, or took so long that this one, its values growing with P, cannot."""
    before = [
        j for j in done if (j.checker, j.stage) == (job.checker, "cost") and j.task["size"] < job.task.get("size", 0)
    ]
    if not before:
        return False
    last = max(before, key=lambda j: j.task["size"])
    passing = last.of("passing")
    if not passing:
        return True
    size = last.task["size"]
    return bool(passing[0]["values"] > size and passing[0]["seconds"] * job.task["size"] / size > 2 * limit)


# --- what was counted -------------------------------------------------------------------------------------------------


def number(x: float) -> str:
    return f"{x:,.0f}".replace(",", " ") if x >= 100 or isinstance(x, int) else f"{x:.1f}" if x >= 10 else f"{x:.2g}"


def placed(line: dict[str, Any]) -> str:
    """What a failing check names, or that it does not fail."""
    if line["verdict"] != "wrong":
        return {"pass": "missed", "refused": "refused", "elsewhere": "wrong tensor"}[line["verdict"]]
    if line["named"]:
        return "entry"
    return "wrong entry" if line.get("entry") else "tensor" if line.get("where") else "no place"


def counts(lines: Iterable[dict[str, Any]], good: Callable[[dict[str, Any]], bool]) -> tuple[int, int]:
    told = [good(line) for line in lines]
    return sum(told), len(told)


def is_found(line: dict[str, Any]) -> bool:
    return bool(line["verdict"] == "wrong")


def is_named(line: dict[str, Any]) -> bool:
    return is_found(line) and bool(line["named"])


def is_clear(line: dict[str, Any]) -> bool:
    return bool(line["verdict"] == "pass")


def find(done: Sequence[Job], checker: str, stage: str, size: int | None = None) -> Job | None:
    return next((j for j in done if (j.checker, j.stage, j.task.get("size")) == (checker, stage, size)), None)


def seen(done: Sequence[Job], checker: str, stage: str, name: str, size: int | None = None) -> list[dict[str, Any]]:
    job = find(done, checker, stage, size)
    return job.of(name) if job else []


# --- what is said of it -----------------------------------------------------------------------------------------------


def count(job: Job, name: str) -> str:
    """How many were called wrong of how many were run, and how many the checker declined to judge."""
    lines = job.of(name)
    if not lines:
        return "—"
    wrong, of = counts(lines, is_found)
    text = f"{wrong} of {of}"
    if refused := sum(x["verdict"] == "refused" for x in lines):
        text += f", {refused} refused"
    if astray := sum(x["verdict"] == "elsewhere" for x in lines):
        text += f", {astray} in another tensor"
    return text + (" (time limit)" if job.ended else "")


def cost_table(done: Sequence[Job], kind: str) -> tuple[str, list[str], list[list[str]]]:
    """One row a checker, one column a size: values, seconds, peak memory; for a failing check also what it names."""
    sizes = [size for size in SIZES if any(find(done, name, "cost", size) for name in CHECKERS)]
    rows = []
    for name, checker in CHECKERS.items():
        cells = []
        for size in sizes:
            job = find(done, name, "cost", size)
            lines = job.of(kind) if job else []
            if not lines:
                cells.append(job.ended if job and job.ended else "—")
                continue
            line = lines[0]
            told = (
                placed(line)
                if kind == "failing"
                else {"pass": "", "refused": "refused"}.get(line["verdict"], "false alarm")
            )
            parts = (
                number(line["values"]),
                told,
                f"{number(line['seconds'])} s",
                f"{number(max(0.1, line['peak_mb']))} MB",
            )
            cells.append(" · ".join(part for part in parts if part))
        rows.append([checker.title, *cells])
    title = (
        "A passing check: values · seconds · memory"
        if kind == "passing"
        else "One entry x1.01: values · what is named · seconds · memory"
    )
    return (
        title,
        ["checker", *(f"P = {number(size)}" for size in sizes)],
        [row for row in rows if set(row[1:]) != {"—"}],
    )


def power_table(
    done: Sequence[Job], stage: str, title: str, names: Sequence[str]
) -> tuple[str, list[str], list[list[str]]]:
    found = [(checker, job) for name, checker in CHECKERS.items() if (job := find(done, name, stage))]
    return title, ["checker", *names], [[c.title, *(count(job, name) for name in names)] for c, job in found]


def must_reach(done: Sequence[Job]) -> tuple[str, list[str], list[list[str]]]:
    """What was asked of gradcheck when this benchmark was planned, held against what was measured."""
    ours = [name for name, checker in CHECKERS.items() if checker.ours]
    rows = []

    def row(what: str, others: str, cells: Sequence[tuple[str, bool] | None]) -> None:
        told = [ok for _, ok in filter(None, cells)]
        verdict = "not measured" if not told else "reached" if all(told) else "not reached"
        rows.append([what, others, *(cell[0] if cell else "—" for cell in cells), verdict])

    def of_all(name: str, good: Callable[[dict[str, Any]], bool], words: str, stage: str = "errors") -> None:
        cells: list[tuple[str, bool] | None] = []
        for checker in ours:
            hit, of = counts(seen(done, checker, stage, name), good)
            cells.append((f"{hit} of {of}", hit == of) if of else None)
        row(words, best_of_others(done, name), cells)

    of_all(ENTRIES[0], is_named, "one recurrent entry x1.01, named")
    of_all(ENTRIES[1], is_named, "one recurrent entry x1.001, named")
    for name in FLOAT32:
        of_all(name, is_found, f"the same of a float32 gradient, x1.01, {name.removeprefix('float32 ')}")
    of_all(CHAOTIC, lambda x: x["verdict"] != "pass", f"the same, {CHAOTIC.removeprefix('float32 ')}: found or refused")
    of_all(WHOLE[0], is_found, "the whole matrix x1.001")
    of_all(WHOLE[1], is_found, "loss x1e-5, recurrent gradient zeroed")
    alarms = {name: counts(alarm_lines(done, name), lambda x: x["verdict"] == "wrong") for name in CHECKERS}
    worst = ", ".join(f"{CHECKERS[n].title} {k} of {of}" for n, (k, of) in alarms.items() if k and n not in ours)
    row(
        "false alarms on correct cases",
        worst or "—",
        [(f"{k} of {of}", not k) if of else None for k, of in (alarms[n] for n in ours)],
    )
    for size in (20_000, 1_000_000):
        failing = [seen(done, name, "cost", "failing", size) for name in ours]
        cells = [
            (number(x[0]["values"]), is_named(x[0]) and x[0]["values"] <= MOST_VALUES) if x else None for x in failing
        ]
        rest = [
            (x[0]["values"], n)
            for n, c in CHECKERS.items()
            if not c.ours and (x := seen(done, n, "cost", "failing", size)) and is_named(x[0])
        ]
        best = min(rest, default=None)
        row(
            f"values, failing with the entry named, P = {number(size)}: at most {MOST_VALUES}",
            f"{number(best[0])} ({CHECKERS[best[1]].title})" if best else "—",
            cells,
        )
    times = times_faster(done, 20_000)
    row(
        f"times as fast as torch's slow mode, P = 20 000: at least {TIMES}",
        "1",
        [times and (times[0], times[1] >= TIMES), None, None],
    )
    return (
        "It must reach",
        ["on the same model and errors", "best of the others", *(CHECKERS[n].title for n in ours), ""],
        rows,
    )


def alarm_lines(done: Sequence[Job], checker: str) -> list[dict[str, Any]]:
    job = find(done, checker, "correct")
    return job.lines[1:] if job else []


def best_of_others(done: Sequence[Job], name: str) -> str:
    """The largest share of a planted error that another checker called wrong, wherever it placed it."""
    others = [(counts(seen(done, n, "errors", name), is_found), c.title) for n, c in CHECKERS.items() if not c.ours]
    shares = [(hit / of, of, f"{hit} of {of} ({title})") for (hit, of), title in others if of]
    return max(shares)[2] if shares else "—"


def times_faster(done: Sequence[Job], size: int) -> tuple[str, float] | None:
    """(words, least factor) by which gradcheck is faster than torch's slow mode on torch's own model, both passing."""
    slow, ours = find(done, "torch slow", "cost", size), seen(done, "gradcheck torch", "cost", "passing", size)
    if not slow or not ours:
        return None
    passing, stopped = slow.of("passing"), re.fullmatch(r"over (\S+) s", slow.ended)
    if not passing and not stopped:
        return None
    times = (passing[0]["seconds"] if passing else float(stopped[1]) if stopped else 0.0) / ours[0]["seconds"]
    return ("" if passing else "over ") + number(times), times


def losses(done: Sequence[Job]) -> list[str]:
    """Where another checker does better than gradcheck on the same framework (PyTensor, SciPy and numdifftools: on autograd)."""
    lines = []
    for name, checker in CHECKERS.items():
        if checker.ours:
            continue
        told: dict[str, list[str]] = {}
        for size in SIZES:
            for kind in ("passing", "failing"):
                theirs, ours = (seen(done, n, "cost", kind, size) for n in (name, checker.counterpart))
                right = is_clear if kind == "passing" else is_found
                if not theirs or not ours or not right(theirs[0]):
                    continue
                for quantity, unit, least in (("values", "values", 1.0), ("seconds", "s", 0.0), ("peak_mb", "MB", 1.0)):
                    one, other = theirs[0][quantity], ours[0][quantity]
                    if one < other - least * (quantity == "peak_mb"):
                        words = f"{number(one)} against {number(other)} {unit}, P = {number(size)}"
                        note = f" ({placed(theirs[0])})" if kind == "failing" and not is_named(theirs[0]) else ""
                        told.setdefault(f"{kind}: ", []).append(words + note)
        for stage, names, good in (("errors", ERRORS, is_found), ("correct", CORRECT, is_clear)):
            for row in names:
                (hit, of), (our_hit, our_of) = (
                    counts(seen(done, n, stage, row), good) for n in (name, checker.counterpart)
                )
                if of and our_of and hit / of > our_hit / our_of:
                    what = "found" if stage == "errors" else "judged right"
                    words = f"{row}: {hit} of {of} against {our_hit} of {our_of}"
                    twin = CORRECT_TWIN.get(row, "default")
                    alarms, correct = counts(seen(done, name, "correct", twin), is_found)
                    if stage == "errors" and alarms:
                        words += f" (and calls {alarms} of {correct} correct ones wrong)"
                    told.setdefault(f"{what}: ", []).append(words)
        if told:
            lines.append(f"{checker.title}: " + "; ".join(kind + ", ".join(parts) for kind, parts in told.items()))
    return lines


def reverse_passes(done: Sequence[Job]) -> str:
    """Of gradcheck's passing checks: what it evaluates besides the values that are counted."""
    lines = [x for job in done if CHECKERS[job.checker].ours for x in job.lines if x.get("verdict") == "pass"]
    taken = sorted({x["reverse_passes"] for x in lines})
    if not taken:
        return "gradcheck was not run."
    span = str(taken[0]) if len(taken) == 1 else f"{taken[0]} to {taken[-1]}"
    return f"gradcheck takes {span} reverse passes for a case that passes, whose own forward halves are not counted as values."


def tables(done: Sequence[Job]) -> list[tuple[str, list[str], list[list[str]]]]:
    result = [
        must_reach(done),
        cost_table(done, "passing"),
        cost_table(done, "failing"),
        power_table(done, "errors", "Planted errors called wrong, P = 728 unless said", ERRORS),
        power_table(done, "correct", "False alarms: correct cases called wrong, P = 728", CORRECT),
    ]
    return [table for table in result if table[2]]


def about() -> dict[str, Any]:
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)$", PINS.read_text(), re.M))
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return {
        "date": today(),
        "system": platform.platform(),
        "cpu": next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine()),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "gradcheck": __version__,
        "versions": {
            n: versions[n] for n in ("torch", "jax", "pytensor", "scipy", "numdifftools", "autograd", "numpy")
        },
    }


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def machine_line(facts: dict[str, Any], done: Sequence[Job]) -> str:
    dates = sorted({job.date for job in done} or {facts["date"]})
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{days}; {facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}; load average "
        f"before {facts['load_before']}; Python {facts['python']}, gradcheck {facts['gradcheck']}, {versions}."
    )


def markdown(facts: dict[str, Any], done: Sequence[Job]) -> str:
    parts = [machine_line(facts, done), ""]
    for title, head, rows in tables(done):
        parts += [f"{title}:", "", "| " + " | ".join(head) + " |", "|" + "-|" * len(head)]
        parts += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    parts += ["Where another checker does better:", ""]
    parts += [
        *(f"- {line}" for line in losses(done) or ["nowhere"]),
        "",
        "Notes:",
        "",
        *(f"- {line}" for line in (*NOTES, reverse_passes(done))),
    ]
    return "\n".join(parts) + "\n"


def write_markdown(file: Path, text: str) -> None:
    """Between the markers of a file that has them, else as the whole file."""
    old = file.read_text() if file.exists() else ""
    start, end = (old.find(marker) for marker in MARKERS)
    if 0 <= start < end:
        text = old[: start + len(MARKERS[0])] + text + old[end:]
    file.write_text(text)


def show(console: Console, facts: dict[str, Any], done: Sequence[Job]) -> None:
    console.print(machine_line(facts, done), "")
    for title, head, rows in tables(done):
        table = Table(*head, box=None, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(cell.replace("*", "") for cell in row))
        console.print(table, "")
    console.print("Where another checker does better:")
    for line in losses(done) or ["nowhere"]:
        console.print(f"- {line.replace('*', '')}", markup=False)
    for line in (*NOTES, reverse_passes(done)):
        console.print(f"- {line}", markup=False)


# --- the command ------------------------------------------------------------------------------------------------------


def kept(file: Path | None, machine: dict[str, Any]) -> list[Job]:
    """The jobs of a file of an earlier run, as far as they hold for the code of today on the same machine."""
    if file is None or not file.exists():
        return []
    try:
        content = json.loads(file.read_text())
        same = all(content["machine"][key] == machine[key] for key in ("cpu", "cores", "system", "python", "versions"))
        found = [Job(**entry) for entry in content["measured"]]
    except (ValueError, TypeError, KeyError) as error:
        raise click.ClickException(f"{file} does not hold measurements of this benchmark: {error!r}") from error
    if not same:
        raise click.ClickException(f"{file} was measured on another machine or with other versions: name another file")
    return [job for job in found if job.checker in CHECKERS and job.made_from == made_from(job.checker)]


def holds(old: Job, job: Job, limit: float) -> bool:
    """Whether a job need not be run again: the same task, and either finished or stopped by no smaller limit."""
    return old.checker == job.checker and old.task == job.task and (not old.ended or old.limit >= limit)


@click.command()
@click.option(
    "--stage",
    "stages",
    type=click.Choice(["cost", "errors", "correct"]),
    multiple=True,
    help="Repeatable.  [default: all]",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="At most N models per error and configuration.  [default: 1 to 45 by checker]",
)
@click.option("--size", "sizes", type=click.Choice(SIZES), multiple=True, default=SIZES, help="Parameters; repeatable.")
@click.option("--only", type=click.Choice(list(CHECKERS)), multiple=True, help="Checkers; repeatable.  [default: all]")
@click.option(
    "--limit", type=float, default=100.0, show_default=True, help="Seconds for one check; x3 for all of one process."
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Keep what was measured in FILE, and what it has need not run again.",
)
@click.option(
    "--markdown",
    "markdown_file",
    type=click.Path(path_type=Path),
    help="Write the tables to FILE, between its markers if it has them.",
)
def main(
    stages: tuple[str, ...],
    seeds: int | None,
    sizes: tuple[int, ...],
    only: tuple[str, ...],
    limit: float,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Measure gradcheck beside other gradient checkers."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)

    def say(line: str) -> None:
        click.echo(line, err=True)

    python = environment(say)
    facts, started = about(), time.perf_counter()
    done = kept(json_file, facts)
    asked = jobs(stages or ("cost", "errors", "correct"), [c for c in CHECKERS if c in only or not only], sizes, seeds)
    left = [job for job in asked if not any(holds(old, job, limit) for old in done)]
    if len(left) < len(asked):
        say(f"{len(asked) - len(left)} of {len(asked)} stand in {json_file}")

    def finished(job: Job) -> None:
        same = (job.checker, job.stage, job.task.get("size"))
        done[:] = [j for j in done if (j.checker, j.stage, j.task.get("size")) != same] + [job]
        say(f"{time.perf_counter() - started:6.1f} s  {job.checker} {job.task}: {job.ended or 'done'}")
        if json_file:
            json_file.write_text(json.dumps({"machine": facts, "measured": [asdict(j) for j in done]}, indent=1) + "\n")

    def counting(job: Job) -> Job:
        run(job, python, limit, 3 * limit)
        return job

    for job in left:
        job.made_from, job.limit, job.date = made_from(job.checker), limit, today()
    for job in left:
        if job.stage == "cost":
            if hopeless(job, done, limit):
                job.ended = "not tried"
            else:
                run(job, python, limit, 3 * limit)
            finished(job)
    with ThreadPoolExecutor(2) as pool:  # these are not timed
        for job in pool.map(counting, [job for job in left if job.stage != "cost"]):
            finished(job)
    show(console, facts, done)
    if markdown_file:
        write_markdown(markdown_file, markdown(facts, done))


if __name__ == "__main__":
    main()
