"""Example reports. A test that takes `example` runs on each of them; `examples` holds them by name."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from gradcheck.model import (
    BackendReport,
    Blame,
    CaseReport,
    Change,
    Check,
    Finding,
    Place,
    Report,
    Severity,
    Verdict,
    Worst,
)  # fmt: skip
from gradcheck.reports import text

FIVE = ("theano-scan", "theano-unroll", "jax-scan", "jax-unroll", "unroll")
NINE = ("W_x", "W_h", "W_z", "W_mu", "W_sigma", "b_h", "W_est", "b_est", "h")


def a_report(*cases: CaseReport, **changes: object) -> Report:
    report = Report(
        version="0.1.0", started="2025-11-23T21:24:00Z", seconds=12.34, exit_code=0, command="gradcheck run cases",
        backends=(BackendReport("theano-scan", "Theano-PyMC", "1.1.2", "3.11.7", "built", 4.2, 1840),), cases=cases,
    )  # fmt: skip
    return replace(report, **changes)


def a_case(*checks: Check, findings: tuple[Finding, ...] = (), name: str = "rnn-vae") -> CaseReport:
    return CaseReport(name, f"cases/{name.replace('-', '_')}.yaml", 0, checks, findings)


def right(backend: str, objective: str, parameter: str, error: float = 2.31e-11) -> Check:
    return Check(
        backend, objective, parameter, Verdict.PASS, shape=(8, 3), dtype="float64",
        analytic_norm=1.5, reference_norm=1.5, max_abs_error=error, max_rel_error=error,
        error_bound=3e-10, detection_limit=4.1e-9,
        reference="finite differences", forward_evaluations=24,
    )  # fmt: skip


def wrong(backend: str, objective: str, parameter: str, error: float = 3.21e-2, *codes: str) -> Check:
    return replace(
        right(backend, objective, parameter, error), verdict=Verdict.MISMATCH, codes=("GC201", *codes),
        detection_limit=None, worst=Worst((0, 0), -0.6395, -0.6437), time_steps=(0, 11),
    )  # fmt: skip


def other(verdict: Verdict, backend: str, objective: str, parameter: str, *codes: str, reason: str = "") -> Check:
    return Check(backend, objective, parameter, verdict, codes, shape=(8, 3), dtype="float64", reason=reason)


REDRAWN = Finding(
    code="GC202", title="gradient is wrong because the backward pass redraws the noise", severity=Severity.ERROR,
    backends=("theano-scan",), objectives=("hidden",), parameters=("W_mu",),
    numbers=(
        ("analytic", "-0.6395   at [0, 0]"),
        ("finite difference", "-0.6437   +- 3e-10, converges"),
        ("unrolled", "right (differences of its own forward agree to 2e-11)"),
    ),
    because="the scan's backward pass starts the random state anew at every step, so the\n"
            "carry's adjoint is multiplied by draws that the forward pass never used",
    proof="with the same draws passed in as a sequence, all 8 gradients agree to 4e-12",
    help="draw outside the loop:  noise: {eps: {placement: sequence}}\n"
         "or return the draw from the step as an output: the scan then stores it",
    note="as a non-sequence the gradient is right too, but all steps then share one draw",
    whose="the backend; Theano raises for W_sigma and stays silent here",
    blame=Blame("rnn_vae.py", 31, None, "Elemwise{mul}", "z = mu + xp.exp(0.5 * log_sigma) * eps"),
    change=Change(
        "cases/rnn_vae_noise_in_step.yaml", 24,
        "-  eps: {shape: [batch, latent], draw: normal, placement: in_step}\n"
        "+  eps: {shape: [batch, latent], draw: normal, placement: sequence}",
        "all 8 of these gradients pass on theano-scan, to 5e-11",
    ),
)  # fmt: skip

WHY_ACCEPTED = "Theano has no gradient through a draw in a scan; tracked upstream in the issue on random scans"

REFUSED = Finding(
    code="GC101", title="gradient is null: a random draw in the scanned step", severity=Severity.ERROR, expected=True,
    backends=("theano-scan",), objectives=("hidden",), parameters=("W_sigma",),
    numbers=(("expected", WHY_ACCEPTED),),
    because="NullTypeGradError: tensor.grad encountered a NaN",
    help="draw outside the loop:  noise: {eps: {placement: sequence}}", whose="the backend",
    blame=Blame("rnn_vae.py", 31, 5, "RandomFunction{normal}", ""),
)  # fmt: skip

STEPWISE = Finding(
    code="GC401", title="the objective is stepwise in the parameter: there is no derivative to compare with",
    severity=Severity.INCONCLUSIVE, backends=FIVE, objectives=("obj",), parameters=("W_z",),
    because="likely a rounding or a comparison: the objective does not move below a step of 1e-3, then jumps",
    help="differentiate a smooth surrogate, or leave the parameter out of `wrt`", whose="step",
)  # fmt: skip

ONE_DRAW = Finding(
    code="GC701", title="one draw is shared by all steps", severity=Severity.ADVICE, backends=("jax-scan",),
    objectives=(), parameters=(), because="eps is a non-sequence", whose="case",
)  # fmt: skip

STALE = Finding(
    code="GC801", title="an expected finding no longer occurs", severity=Severity.ERROR, backends=("jax-scan",),
    objectives=("hidden",), parameters=("W_x",), because="the gradient is right now",
    help="delete the entry under `expect`", whose="case", blame=Blame("cases/rnn_vae.yaml", 31, 5, "",
    "- {backend: jax-scan, code: GC101}"),
)  # fmt: skip

MISSING = Finding(
    code="GC901", title="theano-scan and theano-unroll could not run: no environment", severity=Severity.ERROR,
    backends=("theano-scan", "theano-unroll"), objectives=(), parameters=(),
    because="Theano-PyMC==1.1.2 was not found in the package index (offline?)",
    help="gradcheck doctor theano --rebuild", note="the other backends still ran", whose="environment",
)  # fmt: skip


def accepted(check: Check) -> Check:
    return replace(check, expected=True)


def section_9() -> Report:
    checks = (
        *(right("theano-scan", "hidden", p) for p in ("W_x", "W_h", "W_z")),
        wrong("theano-scan", "hidden", "W_mu", 3.21e-2, "GC202"),
        accepted(other(Verdict.NULL, "theano-scan", "hidden", "W_sigma", "GC101")),
        *(right("theano-unroll", "hidden", p, 0.0) for p in ("W_x", "W_h", "W_z", "W_mu", "W_sigma")),
    )
    case = a_case(*checks, findings=(REFUSED, REDRAWN), name="rnn-vae-noise-in-step")
    return a_report(case, exit_code=1, rerun="gradcheck run cases/rnn_vae_noise_in_step.yaml -b theano-scan")


def five_backends() -> Report:
    checks = {
        (b, o, p): right(b, o, p, 1e-12 * (3 * i + j + 1))
        for b in FIVE for i, o in enumerate(("hidden", "obj", "est")) for j, p in enumerate(NINE)
    }  # fmt: skip
    odd = [
        wrong("theano-scan", "hidden", "W_mu", 3.21e-2, "GC202"),
        accepted(other(Verdict.NULL, "theano-scan", "hidden", "W_sigma", "GC101")),
        *(other(Verdict.INCONCLUSIVE, b, "obj", "W_z", "GC401") for b in FIVE),
        other(Verdict.DISCONNECTED, "jax-unroll", "est", "W_est", "GC103"),
        other(Verdict.NONDETERMINISTIC, "unroll", "est", "b_est", "GC501"),
        other(Verdict.NONFINITE, "jax-scan", "est", "W_z", "GC301", reason="nan at [2, 1]"),
    ]
    checks |= {(c.backend, c.objective, c.parameter): c for c in odd}
    for key in [("unroll", "est", "h"), ("jax-scan", "obj", "h")]:
        del checks[key]
    warnings = ("jax-unroll was not built for a second device; the host's processor was used",)
    findings = (ONE_DRAW, STEPWISE, REFUSED, REDRAWN, STALE)
    rerun = "gradcheck run cases/rnn_vae.yaml -b theano-scan -b jax-scan -b jax-unroll -b unroll -k 'W_mu or est'"
    return a_report(a_case(*checks.values(), findings=findings), exit_code=1, warnings=warnings, rerun=rerun)


def second_order() -> Report:
    """A second derivative that is wrong where the gradient is right."""
    checks = [right(b, "hidden", p) for b in FIVE[2:4] for p in NINE[:2]]
    checks += [replace(c, order=2) for c in checks[1:]]
    checks.append(replace(wrong("jax-scan", "hidden", "W_x"), order=2, time_steps=None))
    finding = Finding(
        code="GC201", title="the second derivative is wrong though the gradient is right", severity=Severity.ERROR,
        backends=("jax-scan",), objectives=("hidden",), parameters=("W_x",), order=2,
        because="differences of the gradient show something else", help="look at custom reverse rules", whose="step",
    )  # fmt: skip
    rerun = "gradcheck run cases/rnn_vae.yaml -b jax-scan --order 2"
    return a_report(a_case(*checks, findings=(finding,)), exit_code=1, rerun=rerun)


def not_run() -> Report:
    checks = [other(Verdict.NOT_RUN, b, "hidden", p, "GC901") for b in FIVE[:2] for p in NINE[:3]]
    checks += [right("jax-scan", "hidden", p) for p in NINE[:3]]
    rerun = "gradcheck run cases/rnn_vae.yaml -b theano-scan"
    return a_report(a_case(*checks, findings=(MISSING,)), exit_code=3, rerun=rerun)


def long_names() -> Report:
    names = [f"decoder.layers.{n}.attention.query_projection.weight" for n in range(15)]
    backends = ("pytensor-nightly-scan", "pytensor-nightly-unroll", "a_third_party_framework", *FIVE[:2])
    objectives = ("evidence_lower_bound_over_the_whole_sequence", "obj")
    checks = [right(b, o, p, 1e-9) for b in backends for o in objectives for p in (*names[:3], "b")]
    finding = replace(
        REDRAWN, backends=backends, objectives=objectives, parameters=tuple(names), expected=False,
        title="gradient is wrong by a constant factor of 4, which is the length of the batch axis of the sequences",
        numbers=(("finite differences of its own forward", "1.0   " + "and-a-very-long-word-without-a-break" * 4),),
        blame=Blame("a/folder/that/is/deep/models/recurrent/variational/rnn_vae_with_a_long_name.py", 1031, 13,
        "Dot", "y = x"),
    )  # fmt: skip
    return a_report(a_case(*checks, findings=(finding,), name="a-case-with-a-name-" + "that-goes-on-" * 6), exit_code=1)


def odd_numbers() -> Report:
    nan, inf = float("nan"), float("inf")
    check = replace(
        wrong("jax-scan", "obj", "W"), max_rel_error=inf, max_abs_error=nan, analytic_norm=-inf,
        worst=Worst((0, 2), nan, inf), reason="loss is \x1b[31mnan\x1b[0m\x00 at σ\tθ",
    )  # fmt: skip
    finding = replace(STALE, title="σ is ± 0 × ∞ [bold]not markup[/bold] \x1b[31mred\x1b[0m: 100%, really", blame=None)
    return a_report(a_case(check, right("jax-scan", "obj", "b", 0.0), findings=(finding,)), exit_code=1)


def many_rows() -> Report:
    checks = [right(b, "obj", f"p{n}", 1e-12 * n) for b in FIVE[:2] for n in range(1, 60)]
    return a_report(a_case(*checks, wrong("theano-scan", "obj", "p60", 0.5), name="native"), exit_code=1)


PROBLEMS = (
    Place("cases/x.yaml", 14, 3, "unknown key 'paramters', did you mean 'parameters'?"),
    Place("cases/x.yaml", 20, 12, "parameter 'W_x': dimension 'inptu' is not one of batch, input, hidden, latent"),
    Place("cases/y.yaml", 0, 0, "cannot be read: permission denied"),
)

EXAMPLES: dict[str, Callable[[], Report]] = {
    "passes": lambda: a_report(a_case(*(right(b, "hidden", p) for b in FIVE[:2] for p in NINE[:3]))),
    "section_9": section_9,
    "five_backends": five_backends,
    "not_run": not_run,
    "second_order": second_order,
    "problems": lambda: a_report(problems=PROBLEMS, exit_code=2, backends=()),
    "long_names": long_names,
    "odd_numbers": odd_numbers,
    "many_rows": many_rows,
    "nothing": lambda: a_report(exit_code=5, backends=()),
}


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Report:
    return EXAMPLES[request.param]()


@pytest.fixture
def examples() -> dict[str, Report]:
    return {name: build() for name, build in EXAMPLES.items()}


@pytest.fixture
def show() -> Callable[..., str]:
    """Render as text: show(report, width, verbose=0, quiet=False, colour=False, encoding="utf-8")."""

    def render(
        report: Report, width: int = 80, verbose: int = 0, quiet: bool = False,
        colour: bool = False, encoding: str = "utf-8",
    ) -> str:  # fmt: skip
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
        console = Console(
            file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None,
            legacy_windows=False, _environ={},
        )  # fmt: skip
        text.render(report, console, verbose, quiet)
        stream.flush()
        return stream.buffer.getvalue().decode(encoding)

    return render
