"""What Python code calls: run (case files), check (a model in this process), assert_correct (the same, in a test)."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradcheck.case_source import shown
from gradcheck.catalog import Backend, load_backends
from gradcheck.configuration import settings_from
from gradcheck.errors import BackendError, GradcheckError, GradientError, UsageError
from gradcheck.evidence import BackendEvidence
from gradcheck.in_process import InProcess, OneProcess, adapter_of, is_users, untouched
from gradcheck.model import Case, Check, Report
from gradcheck.ownership import backend_of, leaves
from gradcheck.pipeline import Plan, Settings, concluded, job, not_run, report_of
from gradcheck.pipeline import run as run_cases
from gradcheck.reports.text import failures

NARROW = "checked in float32, as the model computes: it could not be held against itself in float64, so small errors stay unseen"
StrPath = str | os.PathLike[str]


def run(
    paths: StrPath | Iterable[StrPath] = (),
    *,
    backends: Iterable[str] = (),
    select: str = "",
    seed: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    jobs: int | None = None,
    timeout: float | None = None,
    memory: float | None = None,
    diagnose_seconds: float | None = None,
    fail_fast: bool = False,
    strict: bool = False,
    self_test: bool = False,
    order: int = 1,
    no_expect: bool = False,
    python: Mapping[str, StrPath] | None = None,
    backend_folders: Iterable[StrPath] = (),
    offline: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Check case files, each framework in a process of its own: what `gradcheck run` does, with the same defaults.

    paths: case files or folders of them; default: those of [tool.gradcheck], else cases/. backends: run only these (-b).
    select: only cases whose name matches (-k). seed, rtol, atol: in place of each case's own. jobs: workers busy at a time.
    timeout: seconds for one job of a worker. memory: GB of resident memory for each. diagnose_seconds: for one case's causes.
    fail_fast: stop after the first case with an unexpected error. strict: exit code 3 also for inconclusive checks.
    self_test: plant errors into the gradients that pass, and say which would be seen. order: 2 checks Hessian-vector
    products, too. no_expect: every finding counts as unexpected. python: framework -> interpreter. backend_folders: where
    further backends are (--backends). offline: do not use the network to build environments. progress: is told what is being
    done, line by line.

    Returns the report: print it, show it in a notebook, or look into `.ok`, `.exit_code`, `.checks` and `.findings`. What is
    wrong with a case or a backend is in it. Raises GradcheckError if the arguments or [tool.gradcheck] make no sense.
    """
    limits = {"jobs": jobs, "timeout": timeout, "memory": memory}
    for name, value in {
        **limits,
        "seed": seed,
        "rtol": rtol,
        "atol": atol,
        "diagnose_seconds": diagnose_seconds,
    }.items():
        if value is not None and (value < 0 or (value == 0 and name in limits)):
            raise UsageError(f"{name} has to be {'positive' if name in limits else 'at least 0'}, not {value}")
    if order not in (1, 2):
        raise UsageError(f"order has to be 1 or 2, not {order}")
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    options = {
        "backends": (backends,) if isinstance(backends, str) else backends,
        "expression": select,
        "seed": seed,
        "rtol": rtol,
        "atol": atol,
        "jobs": jobs,
        "timeout": timeout,
        "memory": memory,
        "diagnose_seconds": diagnose_seconds,
        "fail_fast": fail_fast,
        "strict": strict,
        "self_test": self_test,
        "order": order,
        "no_expect": no_expect,
        "python": {name: Path(path) for name, path in (python or {}).items()},
        "folders": tuple(map(Path, backend_folders)),
        "offline": offline,
    }
    settings, chosen = settings_from(options, tuple(map(Path, given)))
    return run_cases(chosen, settings, command="gradcheck.run", progress=progress)


def check(
    loss: Any,
    params: Any = None,
    *args: Any,
    wrt: str | Iterable[str] = (),
    framework: str | None = None,
    seed: int = 0,
    rtol: float | None = None,
    atol: float = 0.0,
    strict: bool = False,
    self_test: bool = False,
    diagnose_seconds: float | None = None,
    name: str | None = None,
) -> Report:
    """Check the gradients of a model that lives in this process, in the framework that its parameters belong to.

    With functions (JAX, PyTorch, autograd): loss(params, *args) gives a scalar; a dict of losses makes several objectives.
    params: as the framework nests them; each leaf is one parameter, by its owner's name (`encoder.W`). With graphs (Theano,
    PyTensor): loss is the cost, or a dict of costs; params what to differentiate by; args one {variable: array} for free inputs.
    Without params: loss is a dict in the framework's native form, as a native case's `build` returns it: a step for a scan, say.

    wrt: parameters by name, globs allowed; default: all of floats. framework: its name, where the objects do not tell. seed: of
    the probe directions. rtol, atol: on top of the reference's own error bound. strict: what cannot be judged fails, too.
    self_test: plant errors into the gradients that pass, and say which would be seen. name: of the model in the report.

    The model is checked in the precision that it has; nothing in the process is changed, and it is left as it was. A crash or an
    endless loop of the model's is the process's own: `gradcheck run` contains them.

    Returns the report, as `run` does; a model that cannot be run is a finding (GC905). Raises GradcheckError where it cannot even
    be told what to check: objects of no known framework, of two, or a version of one that does not fit.
    """
    if params is None and not isinstance(loss, Mapping):
        raise UsageError("no parameters: gradcheck.check(loss, params, ...)")
    if isinstance(params, Iterator):  # such as model.parameters(), which can be walked through once
        params = list(params)
    built = dict(loss) if params is None else {"loss": loss, "params": params, "args": args}
    if params is None and args:
        raise UsageError("arguments of the loss make no sense without parameters")
    settings = Settings(strict=strict, self_test=self_test, diagnose_seconds=diagnose_seconds)
    origin = Origin.of(built)
    with untouched():
        catalog = {known: pair for known, pair in load_backends().items() if pair[0].native}
        natives = list({backend.name: backend for backend, _ in catalog.values()}.values())
        backend = backend_of(natives, built, framework)
        with taken(backend, built) as (form, dtype):
            case = Case(
                name=name or origin.name,
                path=shown(Path(origin.file)),
                step_file=Path(origin.file),
                step_function=origin.function,
                steps=1,
                seed=seed,
                dtype=dtype,
                inputs=(),
                objectives=(),
                backends=None,
                rtol=rtol,
                atol=atol,
                native=backend.name,
                wrt=(wrt,) if isinstance(wrt, str) else tuple(wrt),
                native_dtype=dtype,
                in_process=True,
            )
            return examined(case, backend, catalog, form, settings)


def assert_correct(
    loss: Any,
    params: Any = None,
    *args: Any,
    wrt: str | Iterable[str] = (),
    framework: str | None = None,
    seed: int = 0,
    rtol: float | None = None,
    atol: float = 0.0,
    strict: bool = False,
    name: str | None = None,
) -> None:
    """Raise GradientError, and nothing else, unless every gradient of the model is right. Takes what `check` takes.

    The error's message is the text of the findings and `.report` the whole report. A check that cannot tell (a kink, rounding) is
    no error, except under strict=True; a model that cannot be run, or arguments that make no sense, are.
    """
    __tracebackhide__ = True  # pytest: the findings are the failure, not how we came by them
    options: dict[str, Any] = {"wrt": wrt, "framework": framework, "seed": seed, "rtol": rtol, "atol": atol}
    try:
        report = check(loss, params, *args, **options, strict=strict, name=name)
    except GradcheckError as error:
        raise GradientError("\n".join(filter(None, (error.message, error.context, error.hint)))) from None
    except Exception as error:
        raise GradientError(
            f"internal error in gradcheck, please report it: {type(error).__name__}: {error}"
        ) from error
    if not report.ok:
        raise GradientError(failures(report), report)


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: the file and the name of its first function, or the file of who called gradcheck."""

    file: str
    function: str = ""

    @classmethod
    def of(cls, built: Mapping[str, Any]) -> Origin:
        for function in leaves(built, set()):
            code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
            if code is not None and is_users(code.co_filename):
                return cls(code.co_filename, code.co_name)
        frame = sys._getframe(1)
        while frame.f_back is not None and not is_users(frame.f_code.co_filename):
            frame = frame.f_back
        return cls(frame.f_code.co_filename)

    @property
    def name(self) -> str:
        return self.function if self.function.isidentifier() else "loss"


@contextmanager
def taken(backend: Backend, built: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The adapter's hook: the model in native form and the process's default float, within a scope that leaves no trace."""
    with ExitStack() as scopes:
        try:
            form, dtype = scopes.enter_context(adapter_of(backend).in_process(built))
        except GradcheckError:
            raise
        except Exception as error:
            raise UsageError(f"{backend.framework} cannot take this model", context=str(error)) from error
        yield form, dtype


def examined(
    case: Case, backend: Backend, catalog: Mapping[str, tuple[Backend, str]], form: dict[str, Any], settings: Settings
) -> Report:
    """The report about one model in this process, on every rollout that it has."""
    own = {name: pair for name, pair in catalog.items() if pair[0] is backend}
    plan = Plan(case, tuple(own), named=True)
    with OneProcess(own, InProcess(backend, adapter_of(backend), form)) as crew:

        def evidence(name: str) -> BackendEvidence:
            try:
                return job(case, name, {}, crew, settings.self_test, wanted=False)()
            except BackendError as error:
                return not_run(case, name, error)

        results = [evidence(name) for name in own]
        found = concluded(plan, results, crew, settings)
        report = report_of(plan, found, settings, "gradcheck.check", crew)
    narrow = (NARROW,) if any(map(is_narrow, report.checks)) else ()
    return replace(report, warnings=(*report.warnings, *narrow))


def is_narrow(check: Check) -> bool:
    """Whether a check in float32 had to do with differences in float32."""
    return check.dtype == "float32" and check.reference == "finite differences"
