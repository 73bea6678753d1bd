"""The terminal report: golden at widths 80 and 120, never wider, and readable without colour."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from gradcheck.model import Report, Verdict
from gradcheck.reports import FORMATS
from gradcheck.reports._layout import cells, refill, wrap
from gradcheck.reports.text import finding_text, summary

Show = Callable[..., str]
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", [80, 120])
def test_golden(example: Report, show: Show, width: int, snapshot: SnapshotAssertion) -> None:
    assert show(example, width) == snapshot


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["section_9", "five_backends"])
def test_golden_in_colour_and_verbose(
    examples: dict[str, Report], show: Show, name: str, width: int, snapshot: SnapshotAssertion
) -> None:
    assert show(examples[name], width, verbose=1, colour=True) == snapshot


def test_golden_quiet(examples: dict[str, Report], show: Show, snapshot: SnapshotAssertion) -> None:
    assert show(examples["five_backends"], quiet=True) == snapshot


@pytest.mark.parametrize("width", [40, 57, 80, 100, 120, 200])
@pytest.mark.parametrize("verbose", [0, 1])
@pytest.mark.parametrize("quiet", [False, True])
def test_no_line_exceeds_the_width(example: Report, show: Show, width: int, verbose: int, quiet: bool) -> None:
    for encoding in ("utf-8", "ascii"):
        for line in show(example, width, verbose, quiet, encoding=encoding).splitlines():
            assert cell_len(line) <= width
            assert line == line.rstrip()


def test_colour_adds_nothing_but_colour(example: Report, show: Show) -> None:
    coloured = show(example, colour=True)
    plain = "".join(line.rstrip() + "\n" for line in ANSI.sub("", coloured).splitlines())
    assert plain == show(example)


def test_severities_are_told_by_words(examples: dict[str, Report], show: Show) -> None:
    lines = show(examples["five_backends"]).splitlines()
    headlines = [line.split(":")[0] for line in lines if re.match(r"[a-z]+\[GC", line)]
    assert headlines == ["error[GC202]", "error[GC801]", "inconclusive[GC401]", "advice[GC701]", "expected[GC101]"]


def test_rows_that_need_action_are_marked_and_only_those(examples: dict[str, Report], show: Show) -> None:
    marked = [line for line in show(examples["five_backends"]).splitlines() if line.startswith("!")]
    assert [line.split()[1] for line in marked] == ["W_mu", "W_z", "W_est", "b_est"]
    assert all(re.search(r"WRONG|NOT FINITE|DISCONN|UNREPEAT", line) for line in marked)


def test_every_verdict_has_its_own_word(examples: dict[str, Report], show: Show) -> None:
    check = examples["passes"].cases[0].checks[0]
    case = examples["passes"].cases[0]
    words = set()
    for verdict in Verdict:
        report = replace(examples["passes"], cases=(replace(case, checks=(replace(check, verdict=verdict),)),))
        words.add(show(report).splitlines()[3].split("W_x")[1])
    assert len(words) == len(Verdict)


def test_ascii_where_the_terminal_cannot_do_more(example: Report, show: Show) -> None:
    assert show(example, encoding="ascii").isascii()
    assert "\\u03c3" in show(example, encoding="latin-1") or "σ" not in show(example)


def test_control_characters_and_markup_do_no_harm(examples: dict[str, Report], show: Show) -> None:
    shown = show(examples["odd_numbers"])
    assert "\x1b" not in shown
    assert "[bold]not markup[/bold] red: 100%" in shown


def test_the_example_of_the_design_keeps_its_shape(examples: dict[str, Report], show: Show) -> None:
    shown = show(examples["section_9"], 100)
    assert (
        "\nerror[GC202]: gradient is wrong because the backward pass redraws the noise\n"
        "  --> cases/rnn_vae_noise_in_step.yaml · theano-scan · d hidden / d W_mu\n"
        "      rnn_vae.py:31  z = mu + xp.exp(0.5 * log_sigma) * eps\n"
        "\n"
        "      analytic            -0.6395   at [0, 0]\n"
        "      finite difference   -0.6437   +- 3e-10, converges\n"
        "      unrolled            right (differences of its own forward agree to 2e-11)\n"
        "\n"
        "      because  the scan's backward pass"
    ) in shown


def test_an_expected_finding_is_short_unless_verbose(examples: dict[str, Report], show: Show) -> None:
    brief, full = show(examples["section_9"]), show(examples["section_9"], verbose=1)
    assert "Theano has no gradient" in brief
    assert "NullTypeGradError" not in brief
    assert "NullTypeGradError" in full


def test_the_rerun_command_survives_wrapping(examples: dict[str, Report], show: Show) -> None:
    report = examples["five_backends"]
    shown = show(report).split("\nrerun: ")[1].split("\nexit ")[0]
    assert "\n" in shown
    script = "gradcheck() { printf '%s\\n' \"$@\"; }\n"
    ran = subprocess.run(["sh", "-c", script + shown], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == shlex.split(report.rerun)[1:]


def test_the_summary_line_holds_every_count(examples: dict[str, Report]) -> None:
    assert summary(examples["five_backends"]) == (
        "1 case, 133 checks: 123 passed, 4 failed, 1 expected, 5 inconclusive in 12.3 s"
    )
    assert summary(replace(examples["passes"], seconds=200.0)).endswith("6 passed in 3 min 20 s")


def test_many_rows_fold_unless_verbose(examples: dict[str, Report], show: Show) -> None:
    assert "59 others" in show(examples["many_rows"])
    assert show(examples["many_rows"], verbose=1).count("d obj / d p") == 60


def test_no_name_is_cut(examples: dict[str, Report], show: Show) -> None:
    shown = show(examples["long_names"])
    assert "decoder.layers.0.attention.query_projection.weight\n" in shown
    assert "and 5 more (-v names them)" in shown
    assert "and 5 more" not in show(examples["long_names"], verbose=1)


def test_finding_text_without_its_headline(examples: dict[str, Report]) -> None:
    case = examples["section_9"].cases[0]
    whole = finding_text(case.path, case.findings[1])
    assert whole.splitlines()[1:] == finding_text(case.path, case.findings[1], headline=False).splitlines()


def test_wrap_counts_columns_and_keeps_indents() -> None:
    assert wrap("  a bb ccc", 6) == ["  a bb", "  ccc"]
    assert wrap("", 5) == [""]
    assert wrap("漢字漢字漢字", 5) == ["漢字", "漢字", "漢字"]
    assert cells("e\u0301漢") == 3
    assert refill("one\ntwo\n\nthree\n  four\n- five") == "one two\n\nthree\n  four\n- five"


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_every_format_renders_every_report(example: Report, name: str, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    FORMATS[name](example, Console(file=stream, width=80), 0, False)
    stream.flush()
    assert stream.buffer.getvalue().endswith(b"\n")


def test_importing_the_formats_is_light() -> None:
    code = "import sys, gradcheck.reports; sys.exit(bool({'rich', 'numpy', 'junitparser'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
