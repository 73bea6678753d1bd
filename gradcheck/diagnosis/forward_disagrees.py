"""GC601: the backends do not compute the same objective, and the outlier is named."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck.diagnosis.scene import Claim, Scene, by, finding, step_blame
from gradcheck.evidence import Evidence
from gradcheck.model import Finding


def forward_disagrees(scene: Scene) -> Iterable[Claim]:
    for group in by(scene.with_code("GC601"), lambda e: e.check.objective):
        yield Claim("GC601", group, lambda part: describe(scene, part))


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    _, majority, known, _ = checks[0].notes["forward"]
    rows = tuple({e.check.backend: (e.check.backend, repr(e.notes["forward"][0])) for e in checks}.values())
    others = [
        r.backend for r in scene.results if r.error is None and r.backend not in {e.check.backend for e in checks}
    ]
    names = " and ".join(dict(rows))
    if known:
        title = f"{names} computes another value than the other backends"
        rows = (*rows, ("the others", f"{majority!r}   ({', '.join(others)})"))
        because = f"{', '.join(others)} agree with each other on this objective; {names} does not"
    else:
        title = "backends disagree on the forward value"
        because = f"{names} give different values and no majority says which is right; run a third backend"
    return finding(
        "GC601",
        checks,
        title,
        numbers=rows,
        because=because,
        help="look for a function that differs between the frameworks, a dtype, or a value computed outside of xp",
        note="the gradients of these backends cannot be compared with each other until the forward agrees",
        whose="the step, or the outlier's xp function",
        blame=step_blame(scene.case),
    )
