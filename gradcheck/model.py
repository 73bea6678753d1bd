"""The words of gradcheck as data: Case, Check, Finding, Report. Frozen, no behaviour beyond look-ups, nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Verdict(StrEnum):
    """What is decided about one (backend, objective, parameter). "No reference" is not "wrong"."""

    PASS = "pass"
    NULL = "null"
    DISCONNECTED = "disconnected"
    NONFINITE = "nonfinite"
    MISMATCH = "mismatch"
    NONDETERMINISTIC = "nondeterministic"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not_run"


FAILING = frozenset({Verdict.NULL, Verdict.DISCONNECTED, Verdict.NONFINITE, Verdict.MISMATCH, Verdict.NONDETERMINISTIC})


class Severity(StrEnum):
    ERROR = "error"
    INCONCLUSIVE = "inconclusive"
    ADVICE = "advice"


class Role(StrEnum):
    """What an input is to the step; also decides its shape: sequences and sequence noise carry time in front."""

    PARAMETER = "parameter"
    SEQUENCE = "sequence"
    CARRY = "carry"
    NOISE = "noise"
    CONSTANT = "constant"


# Two inputs that only a diagnosis adds (see Case.time_probe): one scalar a step, and a direction of the parameter's shape.
TIME_OFFSET, TIME_DIRECTION = "gradcheck_time_offset", "gradcheck_time_direction"


class Placement(StrEnum):
    SEQUENCE = "sequence"
    NON_SEQUENCE = "non_sequence"
    IN_STEP = "in_step"


@dataclass(frozen=True, slots=True)
class Init:
    """How an input is filled.

    kind: zeros, ones, normal (mean 0, scale a), uniform ([a, b)), glorot, integers ([a, b)), value (literal), file (npz + key).
    """

    kind: str
    a: float = 0.0
    b: float = 1.0
    value: Any = None  # nested lists or a number, for kind "value"
    file: Path | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """One named input of the step. shape: without time, as the step sees it, dimensions resolved to numbers."""

    name: str
    role: Role
    shape: tuple[int, ...]
    dtype: str
    init: Init
    placement: Placement | None = None  # noise only
    line: int = 0  # in the case file
    bounds: tuple[float, float] | None = (
        None  # the domain that no move may leave, numbers of the dtype; infinite: no limit
    )


@dataclass(frozen=True, slots=True)
class Objective:
    """A named scalar: `reduce` (sum, mean, dot) of carry or output `of` over its T new values.

    at: "all", "last" or a step number (0-based). wrt: names of parameters, sequences or carries.
    """

    name: str
    of: str
    reduce: str
    at: str | int
    wrt: tuple[str, ...]
    line: int = 0
    # set by diagnosis only: the objective of the case that this is a part of, and which: (axis, index) of what is reduced, whose
    # axis 0 is time if `at` is "all"
    whole: str = ""
    part: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Equation:
    """One equation of a step that is written in the case file. line, text: as backends/_worker/equations.py has them."""

    name: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """A known and accepted deviation. An empty tuple matches anything. codes may hold families such as GC2xx."""

    backends: tuple[str, ...]
    objectives: tuple[str, ...]
    parameters: tuple[str, ...]
    codes: tuple[str, ...]
    reason: str
    line: int
    orders: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One case file, checked and resolved. path: as given by the user (relative to the working directory where it can be)."""

    name: str
    path: Path
    step_file: Path  # absolute; of a step of equations the case file
    step_function: str
    steps: int
    seed: int
    dtype: str
    inputs: tuple[Input, ...]  # in the file's order: sequences, carry, noise, parameters, constants
    objectives: tuple[Objective, ...]
    backends: tuple[str, ...] | None  # None: the file names none
    rtol: float | None  # None: the default of the dtype
    atol: float
    options: dict[str, dict[str, Any]] = field(default_factory=dict)  # framework -> option -> value
    expect: tuple[Expectation, ...] = ()
    dims: dict[str, int] = field(default_factory=dict)
    # set by diagnosis only: the parameter that is moved at single time steps; whether xp.stop_gradient lets gradients through
    time_probe: str = ""
    open_stops: bool = False
    # a native case: the framework whose own words `step_function` (its build) answers in, and globs over its parameters. Inputs,
    # objectives, steps and dtype are then the model's own: empty until a worker has built it (see session.completed)
    native: str = ""
    wrt: tuple[str, ...] = ()
    native_draws: bool = False  # whether its loop draws random numbers that its scan does not keep
    native_shared_draws: bool = False  # whether it looks as if all steps of its loop drew the same
    native_dtype: str = ""  # the framework's default float while it is built; `dtype` is then what it computes in
    # a step of equations: in order, and which of them are returned beside the carries; () and () of any other
    equations: tuple[Equation, ...] = ()
    outputs: tuple[str, ...] = ()
    step_source: str = ""  # the step file's text, where it is another than on disk
    in_process: bool = (
        False  # the model lives in this very process (gradcheck.check): there is no case file, path is the model's
    )
    # set by `--order 2` only: (input, coefficient, key) of the direction w; the objectives are then gradient . w
    contraction: tuple[tuple[str, float, int], ...] = ()

    @property
    def order(self) -> int:
        """1: the objectives' gradients are checked; 2: their Hessian-vector products."""
        return 2 if self.contraction else 1

    def inputs_of(self, role: Role) -> tuple[Input, ...]:
        return tuple(i for i in self.inputs if i.role is role)

    def input(self, name: str) -> Input:
        return next(i for i in self.inputs if i.name == name)

    @property
    def process_dtype(self) -> str:
        """The default float that the framework's process needs."""
        return self.native_dtype or self.dtype

    @property
    def draws_in_step(self) -> bool:
        return any(i.placement is Placement.IN_STEP for i in self.inputs)


@dataclass(frozen=True, slots=True)
class Place:
    """A problem in a file: rendered as path:line:column: message."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.message}" if self.line else f"{self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class Worst:
    """The entry with the largest error: both values in objective units per parameter unit."""

    index: tuple[int, ...]
    analytic: float
    reference: float


WHOLE = "the whole tensor"


@dataclass(frozen=True, slots=True)
class Wrong:
    """Which entries of a gradient are wrong, as far as that was looked into. Nothing is said here that was not tested.

    count: how many; exact: whether that is all of them, else it is an estimate, or the least where none of the sample is wrong.
    sample: (wrong, looked at) of the entries that were chosen at random. region: where all of the errors are ("row 3", WHOLE),
    "" if they are scattered; size: its number of entries. shared: what the errors have in common, or "". entries: wrong
    ones that were looked at, the worst first, at most eight.
    """

    count: int
    exact: bool
    sample: tuple[int, int]  # (wrong, looked at)
    region: str
    size: int
    shared: str
    entries: tuple[Worst, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One (backend, objective, parameter) and what was decided about it.

    Errors and bounds are in objective units per parameter unit times the probe direction (whose entries are between half the
    parameter's rms and its rms) unless entries were differenced one by one, then per entry; None where nothing was measured.
    detection_limit: the smallest error in one entry of the gradient that would have been seen.
    """

    backend: str
    objective: str
    parameter: str
    verdict: Verdict
    codes: tuple[str, ...] = ()
    expected: bool = False
    shape: tuple[int, ...] = ()
    dtype: str = ""
    analytic_norm: float | None = None
    reference_norm: float | None = None
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    error_bound: float | None = None
    detection_limit: float | None = None
    reference: str = ""  # "complex step", "finite differences", ...
    forward_evaluations: int = 0
    worst: Worst | None = None
    wrong: Wrong | None = None
    time_steps: tuple[int, int] | None = None
    reason: str = ""  # the framework's own words for a refusal, or why the reference cannot tell
    order: int = 1  # 2: of the Hessian-vector product, whose "objective" is gradient . w
    forward_mode: float | None = (
        None  # how far it is from reverse mode along the probe, relative; asked where not a pass
    )

    @property
    def dead(self) -> bool:
        """Neither gradient nor objective moves: advice, although a framework may say "disconnected"."""
        return self.codes[:1] == ("GC104",)

    @property
    def failing(self) -> bool:
        return self.verdict in FAILING and not self.dead


@dataclass(frozen=True, slots=True)
class Blame:
    """The culprit line. file: relative to the working directory; line 1-based; column 1-based or None; op: its name or ""."""

    file: str
    line: int
    column: int | None
    op: str
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was tried. file, line: where it begins; diff: lines that begin with - or +; tried: what was seen with it."""

    file: str
    line: int
    diff: str
    tried: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnosis, grouping the checks that share one cause.

    numbers: (label, text) lines such as ("analytic", "-0.6395   at [0, 0]"); details: further ones, for -v. because: what was
    observed (with "likely" where it was not). proof: the run that proves it, or "". help: what to change. note: what is not
    wrong. whose: who owns the defect.
    Multi-line slots hold newlines.
    """

    code: str
    title: str
    severity: Severity
    backends: tuple[str, ...]
    objectives: tuple[str, ...]
    parameters: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    because: str = ""
    proof: str = ""
    help: str = ""
    note: str = ""
    whose: str = ""
    expected: bool = False
    blame: Blame | None = None
    order: int = 1  # of the checks that it is about
    change: Change | None = None  # how `help` can be followed

    def saying(self, label: str, text: str) -> Finding:
        """With one more line among the details."""
        return replace(self, details=((label, text), *self.details))


@dataclass(frozen=True, slots=True)
class Planted:
    """One kind of error of a self-test: how many were planted into passing gradients, and how many were seen."""

    backend: str
    kind: str
    planted: int
    seen: int
    missed: tuple[str, ...]  # "d objective / d parameter"


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What was found about one case. path: relative to the working directory. self_test: empty unless it was asked for."""

    name: str
    path: str
    seed: int
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    self_test: tuple[Planted, ...] = ()
    check_seconds: float = 0.0  # spent on the checks, summed over the backends
    diagnosis_seconds: float = 0.0  # spent on causes, once all checks were made
    warnings: tuple[str, ...] = ()  # what went wrong in gradcheck itself


@dataclass(frozen=True, slots=True)
class BackendReport:
    """Who did the work. environment: given, running or built (or "" if it never started)."""

    name: str
    framework: str
    framework_version: str
    python_version: str
    environment: str
    seconds: float
    forward_evaluations: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a run has to say. started: ISO 8601 in UTC; rerun: the command that reruns just what failed, or ""."""

    version: str
    started: str
    seconds: float
    exit_code: int
    command: str
    backends: tuple[BackendReport, ...]
    cases: tuple[CaseReport, ...]
    problems: tuple[Place, ...] = ()  # broken case files
    rerun: str = ""
    warnings: tuple[str, ...] = ()  # one loud line each, e.g. a default backend that could not be built

    @property
    def ok(self) -> bool:
        """Whether everything is as expected: exit code 0."""
        return self.exit_code == 0

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks of all cases."""
        return tuple(check for case in self.cases for check in case.checks)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all cases."""
        return tuple(finding for case in self.cases for finding in case.findings)

    # how it reads is for gradcheck.reports to say; this is where print, a notebook and a debugger look for it

    def text(self, width: int = 80, verbose: int = 0) -> str:
        """The terminal report without colour. verbose: 1 adds detection limits and expected findings in full, as -v does."""
        from gradcheck.reports.text import text

        return text(self, width, verbose)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        from gradcheck.reports.text import summary

        return f"<Report: {summary(self)}>"

    def _repr_html_(self) -> str:
        from gradcheck.reports.notebook import html

        return html(self)


@dataclass(slots=True)
class Gradient:
    """What a backend's reverse mode returned for one (objective, parameter).

    status: "ok" (array is set), "null", "disconnected" or "refused"; why: the framework's reason, "" if ok.
    """

    status: str
    array: np.ndarray | None = None
    why: str = ""
