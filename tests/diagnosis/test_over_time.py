"""GC702 reads a trend off the gradient by a sequence: extreme ones are told with their numbers, others are not."""

from pathlib import Path

import pytest

from gradcheck import pipeline

CASE = """\
name: {name}
step: step.py:step
steps: 10
dims: {{n: 2}}
sequences: {{x: {{shape: [n], init: normal}}}}
carry: {{h: {{shape: [n], init: ones}}}}
parameters: {{w: {{shape: [n], init: {{value: {value}}}}}}}
objectives: {{h: {{of: h, reduce: sum, at: {at}, wrt: [w, x, h]}}}}
backends: [unroll]
"""
TOLD = {  # name -> value of w, at, title, factor per step
    "vanishes": (0.01, "last", "the gradient vanishes over time", "x 0.01,"),
    "explodes": (7.5, "all", "the gradient explodes over time", "x 7.62,"),  # (7.5^10 - 1)/6.5 to the power of 1/9
    "early": (0.01, 6, "the gradient vanishes over time", "x 0.01,"),
    "mild": (0.5, "last", "", ""),
    "of-all-steps": (0.01, "all", "", ""),  # each step has a part of its own
    "short": (0.0001, 2, "", ""),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("over_time")
    (folder / "step.py").write_text('def step(xp, x, h, w):\n    return {"h": w * h + x}\n')
    for name, (value, at, _, _) in TOLD.items():
        (folder / f"{name}.yaml").write_text(CASE.format(name=name, value=value, at=at))
    report = pipeline.run([Path(folder)], pipeline.Settings())
    assert report.exit_code == 0
    return {case.name: case.findings for case in report.cases}


@pytest.mark.backend
@pytest.mark.parametrize("name", TOLD)
def test_extreme_trends_are_told_and_no_others(name, findings):
    _, _, title, per_step = TOLD[name]
    assert [f.title for f in findings[name]] == ([title] if title else [])
    if title:
        (found,) = findings[name]
        assert (found.code, found.parameters) == ("GC702", ("x",))
        assert dict(found.numbers)["per step"].startswith(per_step)
