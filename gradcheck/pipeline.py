"""The pipeline, top to bottom: load cases, examine each on its backends in parallel, judge, diagnose, report."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from gradcheck import __version__
from gradcheck.case_file import CaseFileError, collect, load
from gradcheck.catalog import Backend, check_options, load_backends, suggest
from gradcheck.crew import Crew
from gradcheck.data import arrays as seeded_arrays
from gradcheck.diagnosis import diagnose
from gradcheck.diagnosis.scene import Scene, relative
from gradcheck.errors import BackendError, GradcheckError, UsageError
from gradcheck.evidence import BackendEvidence, Evidence
from gradcheck.examine import Examination, float64_twin, is_twin
from gradcheck.forward_mode import second_opinions
from gradcheck.judge import across_backends
from gradcheck.laboratory import Laboratory, seconds_for
from gradcheck.model import Case, CaseReport, Check, Gradient, Place, Report, Severity, Verdict
from gradcheck.second_order import contracted
from gradcheck.selection import Selection
from gradcheck.self_test import self_test
from gradcheck.session import Arrays, OneRollout, Session
from gradcheck.workers import Limits

LOOKAHEAD = 2  # cases whose evidence may exist at a time: keeps workers busy and the core's memory flat


@dataclass(frozen=True)
class Settings:
    """How to run. None or empty: the case or the default decides."""

    backends: tuple[str, ...] = ()  # narrows each case's own list
    default_backends: tuple[str, ...] = ()  # for cases that name none
    select: Selection = field(default_factory=Selection)
    seed: int | None = None
    rtol: float | None = None
    atol: float | None = None
    jobs: int | None = None
    limits: Limits = field(default_factory=Limits)
    fail_fast: bool = False
    strict: bool = False
    use_expect: bool = True
    self_test: bool = False
    order: int = 1  # 2: Hessian-vector products too
    diagnose_seconds: float | None = None  # for one case; None: see laboratory.seconds_for
    offline: bool = False
    python: Mapping[str, Path] = field(default_factory=dict)
    extra_backends: tuple[Path, ...] = ()


@dataclass
class Plan:
    """One case and the backends it will run on. named: the case or the user asked for them by name."""

    case: Case
    backends: tuple[str, ...]
    named: bool
    listed: tuple[str, ...] = ()  # those that stand in the case or after -b

    def wanted(self, name: str) -> bool:
        """Whether a backend that has nothing to run has to say so."""
        return name in self.listed


def run(
    paths: Sequence[Path],
    settings: Settings,
    *,
    command: str = "",
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Check all cases below the paths. Raises UsageError for a senseless selection; everything else is in the report."""
    started, clock = datetime.now(UTC), time.monotonic()
    catalog = load_backends(settings.extra_backends)
    check_names(settings, catalog)
    cases, problems = load_all(paths, settings, catalog)
    plans = [plan for case in cases if (plan := planned(case, settings, catalog)).backends]
    crew = Crew(
        catalog,
        given=settings.python,
        offline=settings.offline,
        limits=settings.limits,
        jobs=settings.jobs,
        progress=progress,
    )
    reports: list[CaseReport] = []
    with crew:
        for plan, results in examined(plans, crew, settings, progress):
            reports.append(concluded(plan, results, crew, settings))
            if settings.fail_fast and is_failing(reports[-1]):
                break
        used = [name for name in catalog if any(name in plan.backends for plan in plans)]
        backends = crew.reports(used)
        logs = str(crew.logs) if crew.failed else ""
    return Report(
        version=__version__,
        started=started.isoformat(timespec="seconds"),
        seconds=time.monotonic() - clock,
        exit_code=exit_code(plans, reports, problems, settings),
        command=command,
        backends=backends,
        cases=tuple(reports),
        problems=tuple(problems),
        rerun=rerun(reports),
        warnings=(
            *left_out(cases, plans, problems, settings),
            *(first_order_only(reports) if settings.order == 2 else ()),
            *(line for report in reports for line in report.warnings),
            *warnings(plans, reports, logs),
        ),
    )


# --- which cases, on which backends -----------------------------------------------------------------------------------


def check_names(settings: Settings, catalog: Mapping[str, tuple[Backend, str]]) -> None:
    for where, names in (("", settings.backends), ("[tool.gradcheck] backends: ", settings.default_backends)):
        for name in names:
            if name not in catalog:
                unknown = f"{where}unknown backend '{name}'{suggest(name, catalog)}"
                raise UsageError(unknown, hint="gradcheck list backends")
    frameworks = {backend.name for backend, _ in catalog.values()}
    for name in settings.python:
        if name not in frameworks:
            raise UsageError(
                f"--python or [tool.gradcheck.python]: unknown framework '{name}'{suggest(name, sorted(frameworks))}",
                hint="gradcheck list backends",
            )


def load_all(
    paths: Sequence[Path], settings: Settings, catalog: Mapping[str, tuple[Backend, str]]
) -> tuple[list[Case], list[Place]]:
    """Every case that can be loaded, and every problem of the others."""
    cases: list[Case] = []
    problems: list[Place] = []
    files: list[Path] = []
    try:
        files = collect(paths)
    except CaseFileError as error:  # paths that do not exist: the others still run
        problems.extend(error.places)
        files = collect([path for path in paths if path.exists()])
    frameworks = {backend.name for backend, _ in catalog.values()}
    for file in files:
        try:
            case = load(file, frameworks, lambda case: misfits(case, catalog))
        except CaseFileError as error:
            problems.extend(error.places)
            continue
        if settings.select.matches(case):
            cases.append(overridden(case, settings))
    return cases, problems


def misfits(case: Case, catalog: Mapping[str, tuple[Backend, str]]) -> list[tuple[tuple[str | int, ...], str]]:
    """What only the catalog can tell about a case file: unknown backends and options, and where they stand."""
    backends: list[tuple[tuple[str | int, ...], str]] = [
        (("backends", index), f"unknown backend '{name}'{suggest(name, catalog)}")
        for index, name in enumerate(case.backends or ())
        if name not in catalog
    ]
    known = {backend.name for backend, _ in catalog.values()}
    options = {group: chosen for group, chosen in case.options.items() if group in known}  # the loader names the others
    natives = {backend.name for backend, _ in catalog.values() if backend.native}
    if case.native and case.native not in natives:
        unknown = f"unknown framework '{case.native}'{suggest(case.native, sorted(natives))}"
        return [(("step", "framework"), unknown), *backends, *check_options(options, catalog)]
    foreign: list[tuple[tuple[str | int, ...], str]] = [
        (("backends", index), f"{name!r} cannot run a model of {case.native}")
        for index, name in enumerate(case.backends or ())
        if case.native and name in catalog and catalog[name][0].name != case.native
    ]
    return [*backends, *foreign, *check_options(options, catalog)]


def overridden(case: Case, settings: Settings) -> Case:
    """The case with what the command line says instead."""
    seed = case.seed if settings.seed is None else settings.seed
    rtol = case.rtol if settings.rtol is None else settings.rtol
    atol = case.atol if settings.atol is None else settings.atol
    return replace(case, seed=seed, rtol=rtol, atol=atol)


def planned(case: Case, settings: Settings, catalog: Mapping[str, tuple[Backend, str]]) -> Plan:
    shipped = tuple(name for name, (backend, _) in catalog.items() if backend.default)
    if case.native:  # only its own framework can run it, whatever the default is
        own = case.backends or tuple(name for name, (backend, _) in catalog.items() if backend.name == case.native)
    else:
        own = case.backends or settings.backends or settings.default_backends or shipped
    chosen = tuple(name for name in own if not settings.backends or name in settings.backends)
    listed = tuple(case.backends or settings.backends or ())
    return Plan(case, chosen, named=bool(case.backends or settings.backends or case.native), listed=listed)


# --- evidence ---------------------------------------------------------------------------------------------------------


def examined(
    plans: Sequence[Plan], crew: Crew, settings: Settings, progress: Callable[[str], None]
) -> Iterator[tuple[Plan, list[BackendEvidence]]]:
    """Each plan with its evidence, in order; the next cases are already on their way."""
    waiting: deque[tuple[Plan, list[Future[BackendEvidence]]]] = deque()
    remaining = iter(plans)
    count = 0

    def submit() -> None:
        if (plan := next(remaining, None)) is not None:
            waiting.append((plan, ordered(plan, crew, settings)))

    for _ in range(LOOKAHEAD):
        submit()
    while waiting:
        plan, futures = waiting[0]
        count += 1
        results = []
        for name, future in zip(plan.backends, futures, strict=True):
            progress(f"[{count}/{len(plans)}] {plan.case.name} · {name}")
            results.append(outcome(plan.case, name, future))
        waiting.popleft()
        yield plan, results
        submit()


def ordered(plan: Plan, crew: Crew, settings: Settings) -> list[Future[BackendEvidence]]:
    """The evidence of each of the plan's backends, on its way."""
    try:
        arrays = seeded_arrays(plan.case)
    except (OSError, ValueError, GradcheckError) as error:
        failed: Future[BackendEvidence] = Future()
        failed.set_exception(BackendError(f"the inputs cannot be made: {error}", code="GC905"))
        return [failed for _ in plan.backends]
    ask = (settings.self_test, settings.order)
    return [
        crew.submit(plan.case, name, job(plan.case, name, arrays, crew, *ask, wanted=plan.wanted(name)))
        for name in plan.backends
    ]


def job(
    case: Case, name: str, arrays: Arrays, crew: Crew, plant: bool = False, order: int = 1, wanted: bool = True
) -> Callable[[], BackendEvidence]:
    """The examination of a case on one backend, to be run in the thread of its worker.

    wanted: False if a native model that has no such rollout is to be left out without a word.
    """

    def examine() -> BackendEvidence:
        clock = time.monotonic()
        evidence = examine_order(case, plant)
        second = contracted(case, arrays, evidence.checks) if order == 2 else None
        if second is not None:
            try:
                evidence.second = examine_order(second)
            except BackendError as error:  # what was found about the gradients stays
                evidence.second = not_run(second, name, error)
        evidence.seconds = time.monotonic() - clock
        return evidence

    def examine_order(case: Case, plant: bool = False) -> BackendEvidence:
        with ExitStack() as sessions:
            try:
                session = sessions.enter_context(crew.session(case, name, arrays))
            except OneRollout:
                if wanted:
                    raise
                return BackendEvidence(name, crew.catalog[name][1], [])
            twin = None
            if session.case.native:
                twin = native_twin(session, name, crew, sessions)
            elif case.dtype == "float32" and not case.draws_in_step:
                wide, widened = float64_twin(case, arrays)
                twin = sessions.enter_context(crew.session(wide, name, widened))
            exam = Examination(name, session, twin, case.rtol, case.atol)
            evidence = exam.run()
            if plant:
                evidence.self_test = self_test(exam, evidence.checks, lambda timed, at: crew.session(timed, name, at))
            second_opinions(exam, evidence.checks)  # last: should the worker die of it, nothing is lost
        return evidence

    return examine


def native_twin(session: Session, name: str, crew: Crew, sessions: ExitStack) -> Session | None:
    """The float64 twin of a native model in float32, or None: not every model can be widened, and a draw may change with it."""
    if session.case.dtype != "float32":
        return None
    try:
        twin = sessions.enter_context(
            crew.session(replace(session.case, inputs=(), objectives=()), name, {}, widen=True)
        )
        return twin if is_twin(session, twin) else None
    except BackendError:
        return None


def outcome(case: Case, name: str, future: Future[BackendEvidence]) -> BackendEvidence:
    """The evidence, or not_run checks with the reason."""
    try:
        return future.result()
    except BackendError as error:
        return not_run(case, name, error)


def not_run(case: Case, name: str, error: BackendError) -> BackendEvidence:
    shapes = {i.name: i for i in case.inputs}
    checks = [
        Evidence(
            Check(
                name,
                o.name,
                p,
                Verdict.NOT_RUN,
                (error.code,),
                shape=shapes[p].shape,
                dtype=shapes[p].dtype,
                reason=error.message,
                order=case.order,
            ),
            Gradient("refused"),
        )
        for o in case.objectives
        for p in o.wrt
    ]
    if case.native:  # what it would have been asked was still to be told by the model
        names = case.wrt or ("*",)
        checks = [
            Evidence(Check(name, "*", p, Verdict.NOT_RUN, (error.code,), reason=error.message), Gradient("refused"))
            for p in names
        ]
    return BackendEvidence(name, "", checks, error=error)


def concluded(plan: Plan, results: list[BackendEvidence], crew: Crew, settings: Settings) -> CaseReport:
    """Judge what only several backends can tell, diagnose, and keep what a report needs."""
    case = next((r.case for r in results if r.case is not None), plan.case)
    across_backends(case, results, {name: backend.name for name, (backend, _) in crew.catalog.items()})
    second = [r.second for r in results if r.second is not None]
    checking = sum(r.seconds for r in results)
    granted = settings.diagnose_seconds
    lab = Laboratory(crew, seconds_for(checking) if granted is None else granted)
    scene = Scene(case, seeded_arrays(case) if draws_matter(results) else {}, results, lab, second=second)
    clock = time.monotonic()
    findings = diagnose(scene, settings.use_expect)
    spent = time.monotonic() - clock
    checks = tuple(e.check for r in (*results, *second) for e in r.checks)
    planted = tuple(p for r in results for p in r.self_test)
    return CaseReport(
        case.name,
        relative(case.path),
        case.seed,
        checks,
        tuple(findings),
        planted,
        checking,
        spent,
        tuple(scene.failed),
    )


def draws_matter(results: Sequence[BackendEvidence]) -> bool:
    """Whether any rule may want to run something, and so needs the inputs again."""
    return any(e.check.verdict is not Verdict.PASS or e.check.dead for r in results for e in r.checks)


# --- the outcome ------------------------------------------------------------------------------------------------------


def report_of(plan: Plan, case: CaseReport, settings: Settings, command: str, crew: Crew) -> Report:
    """The report of a run that had one case."""
    return Report(
        version=__version__,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=case.check_seconds + case.diagnosis_seconds,
        exit_code=exit_code([plan], [case], [], settings),
        command=command,
        backends=crew.reports([name for name in plan.backends if any(c.backend == name for c in case.checks)]),
        cases=(case,),
        rerun="" if plan.case.in_process else rerun([case]),
        warnings=case.warnings,
    )


def is_failing(report: CaseReport) -> bool:
    return any(f.severity is Severity.ERROR and not f.expected for f in report.findings)


def exit_code(
    plans: Sequence[Plan], reports: Sequence[CaseReport], problems: Sequence[Place], settings: Settings
) -> int:
    """0, 1, 2, 3 or 5 as the contract says; 2 before 1 before 3 before 5."""
    if problems:
        return 2
    if not reports:
        return 5
    checks = [(plan, c) for plan, report in zip(plans, reports, strict=False) for c in report.checks if not c.expected]
    if any(c.failing for _, c in checks) or any(f.code == "GC801" for r in reports for f in r.findings):
        return 1
    missing = [(plan, c) for plan, c in checks if c.verdict is Verdict.NOT_RUN]
    something_ran = any(c.verdict is not Verdict.NOT_RUN for _, c in checks)
    if any(not excused(plan, c) or settings.strict or not something_ran for plan, c in missing):
        return 3
    if settings.strict and any(c.verdict is Verdict.INCONCLUSIVE for _, c in checks):
        return 3
    return 0


def excused(plan: Plan, check: Check) -> bool:
    """A backend that nobody asked for by name and that cannot be had here."""
    return not plan.named and check.codes == ("GC901",)


def left_out(cases: Sequence[Case], plans: Sequence[Plan], problems: Sequence[Place], settings: Settings) -> list[str]:
    """Why there is nothing to run, or less than was asked for."""
    if not cases and not problems:
        asked = (
            f"no case's name matches -k '{settings.select.expression}'"
            if settings.select.expression
            else "no case file"
        )
        return [f"{asked}; `gradcheck list PATHS` shows what there is, `gradcheck init NAME` writes a first case"]
    if len(plans) < len(cases):
        planned_cases = {plan.case.path for plan in plans}
        names = ", ".join(case.name for case in cases if case.path not in planned_cases)
        return [f"not run, as they name none of the backends that -b names: {names}"]
    return []


def first_order_only(reports: Sequence[CaseReport]) -> list[str]:
    """How many checks were not made at second order."""
    orders = [sum(c.order == order for r in reports for c in r.checks) for order in (1, 2)]
    count = orders[0] - orders[1]
    why = "it is asked of portable steps, where the gradient passes"
    return [f"second order: {count} of {orders[0]} checks left out: {why}"] if count else []


def warnings(plans: Sequence[Plan], reports: Sequence[CaseReport], logs: str) -> tuple[str, ...]:
    """One loud line per backend that could not be had, and where the logs are."""
    gone: dict[str, str] = {}
    for _, report in zip(plans, reports, strict=False):
        for check in report.checks:
            if check.codes == ("GC901",):
                gone.setdefault(check.backend, check.reason)
    lines = [f"{name} did not run: {reason}" for name, reason in gone.items()]
    if logs:
        lines.append(f"the workers' logs are kept in {logs}")
    return tuple(lines)


def rerun(reports: Sequence[CaseReport]) -> str:
    """The command that reruns just what failed."""
    failing = [r for r in reports if is_failing(r)]
    if not failing:
        return ""
    backends = dict.fromkeys(
        b for r in failing for f in r.findings if f.severity is Severity.ERROR and not f.expected for b in f.backends
    )
    paths = dict.fromkeys(r.path for r in failing)
    second = any(f.order == 2 and f.severity is Severity.ERROR and not f.expected for r in failing for f in r.findings)
    return " ".join(["gradcheck run", *paths, *(f"-b {name}" for name in backends), *["--order 2"] * second])
