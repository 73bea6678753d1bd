"""A step that refuses values outside its domain: with `bounds:` no operation ever leaves it, whatever is looked for."""

import pytest

from gradcheck.model import Verdict

STEP = '''
def guarded(xp, x, h, rate, share, **others):
    """rate: from 0 on, some entries 0; share: from 0 to 1, both included."""
    if not ((rate.real >= 0).all() and (share.real >= 0).all() and (share.real <= 1).all()):
        raise ValueError("outside the domain")
    h = xp.tanh(share * h + x * rate)
    return {"h": h, "out": h**2 + (share * rate) ** 2}
'''
PARAMETERS = {
    "rate": "{shape: [hidden], init: {value: [0, 0.7, 0, 1.3]}, bounds: [0, null]}",
    "share": "{shape: [hidden], init: {value: [0, 1, 0.4, 1]}, bounds: [0, 1]}",
}
OBJECTIVES = {
    "hidden": "{of: h, reduce: sum, wrt: [rate, share]}",
    "out": "{of: out, reduce: mean, wrt: [rate, share]}",
}


@pytest.fixture
def report(bench):
    def run(fault, **more):
        (bench.folder / "rnn.py").write_text(STEP)
        path = bench.case(fault, step="guarded", parameters=PARAMETERS, objectives=OBJECTIVES)
        path.write_text(path.read_text().replace("[batch, input], init: normal", "[batch, hidden], init: normal"))
        return bench.run(path, **more)

    return run


def test_the_healthy_one_passes_with_its_limits_shown_honest(report):
    found = report("", self_test=True)
    assert {c.verdict for c in found.cases[0].checks} == {Verdict.PASS}
    rows = {row.kind: row for row in found.cases[0].self_test}
    assert rows["one entry, at the stated limit"].seen == rows["one entry, at the stated limit"].planted == 4


def test_so_it_does_by_complex_step(report):
    checks = report("complex").cases[0].checks
    assert {(c.verdict, c.reference) for c in checks} == {(Verdict.PASS, "complex step")}


@pytest.mark.parametrize("name", ["rate", "share"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_wrong_entry_is_named_on_the_bound_and_beside_it(report, name, index):
    for check in report(f"entry {name} {index} 0.01").cases[0].checks:
        assert check.verdict is (Verdict.MISMATCH if check.parameter == name else Verdict.PASS)
        if check.parameter == name:
            assert check.worst.index == (index,)
            assert check.worst.analytic - check.worst.reference == pytest.approx(0.01, rel=1e-3)


def test_wrong_time_steps_are_found_inside_the_domain(report):
    found = report("bad_step").cases[0].checks
    assert {c.verdict for c in found} == {Verdict.MISMATCH}
    assert found[0].time_steps == (2, 2)  # of the finding's first check
