"""The JSON report against its schema (DESIGN section 8), key order included."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gradcheck.errors import UsageError
from gradcheck.model import Report, Verdict
from gradcheck.reports.json import document, write, write_file


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def a_list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


STRING = {"type": "string"}
SLOT = nullable({"type": "string", "minLength": 1})
COUNT = {"type": "integer", "minimum": 0}
NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
CODE = {"type": "string", "pattern": "^GC[1-9][0-9]{2}$"}

CHECK = an_object(
    backend=STRING, objective=STRING, parameter=STRING, verdict={"enum": [verdict.value for verdict in Verdict]},
    codes=a_list(CODE), expected={"type": "boolean"}, shape=a_list(COUNT), dtype=STRING, analytic_norm=nullable(NUMBER),
    reference_norm=nullable(NUMBER), max_abs_error=nullable(NUMBER), max_rel_error=nullable(NUMBER),
    error_bound=nullable(NUMBER), detection_limit=nullable(NUMBER), reference=STRING, forward_evaluations=COUNT,
    worst=nullable(an_object(index=a_list(COUNT), analytic=NUMBER, reference=NUMBER)),
    wrong=nullable(an_object(
        count=COUNT, exact={"type": "boolean"}, sample=an_object(wrong=COUNT, size=COUNT), region=SLOT, size=COUNT, shared=SLOT,
        entries=a_list(an_object(index=a_list(COUNT), analytic=NUMBER, reference=NUMBER)),
    )),
    time_steps=nullable({"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2}), reason=SLOT,
    order={"enum": [1, 2]}, forward_mode=nullable(NUMBER),
)  # fmt: skip
FINDING = an_object(
    code=CODE, title=STRING, severity={"enum": ["error", "inconclusive", "advice"]}, backends=a_list(STRING),
    objectives=a_list(STRING), parameters=a_list(STRING), because=SLOT, proof=SLOT, help=SLOT, note=SLOT, whose=SLOT,
    expected={"type": "boolean"},
    blame=nullable(an_object(file=STRING, line=COUNT, column=nullable(COUNT), op=STRING, text=STRING)),
    numbers=a_list(an_object(label=STRING, text=STRING)), order={"enum": [1, 2]},
    change=nullable(an_object(file=STRING, line=COUNT, diff=STRING, tried=STRING)),
)  # fmt: skip
SCHEMA = an_object(
    schema_version={"const": "1.0"}, tool=an_object(name={"const": "gradcheck"}, version=STRING), started=STRING,
    seconds=NUMBER, exit_code=COUNT, command=STRING,
    summary=an_object(
        cases=COUNT, checks=COUNT, passed=COUNT, failed=COUNT, expected=COUNT, inconclusive=COUNT, not_run=COUNT,
    ),
    backends=a_list(an_object(
        name=STRING, framework=STRING, framework_version=STRING, python_version=STRING, environment=STRING,
        seconds=NUMBER, forward_evaluations=COUNT,
    )),
    cases=a_list(an_object(name=STRING, path=STRING, seed=COUNT, checks=a_list(CHECK), findings=a_list(FINDING),
                           check_seconds=NUMBER, diagnosis_seconds=NUMBER)),
    problems=a_list(STRING), warnings=a_list(STRING), rerun=SLOT,
)  # fmt: skip


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def in_order(value: Any, schema: dict[str, Any]) -> bool:
    """Whether the keys of every object come in the order of the schema."""
    for choice in schema.get("anyOf", [schema]):
        if isinstance(value, dict) and "properties" in choice:
            keys = choice["properties"]
            return list(value) == list(keys) and all(in_order(value[key], keys[key]) for key in keys)
        if isinstance(value, list) and "items" in choice:
            return all(in_order(item, choice["items"]) for item in value)
    return not isinstance(value, dict)


def test_document_keeps_the_schema_and_its_order(example: Report) -> None:
    made = document(example)
    jsonschema.validate(made, SCHEMA)
    assert in_order(made, SCHEMA)


def test_written_json_is_strict_and_is_the_document(example: Report) -> None:
    stream = io.StringIO()
    write(example, stream)
    assert stream.getvalue().endswith("}\n")
    assert json.loads(stream.getvalue(), parse_constant=refuse) == document(example)


def test_numbers_that_are_not_finite_are_strings(examples: dict[str, Report]) -> None:
    check = document(examples["odd_numbers"])["cases"][0]["checks"][0]
    assert (check["max_rel_error"], check["max_abs_error"], check["analytic_norm"]) == ("Infinity", "NaN", "-Infinity")
    assert check["worst"] == {"index": [0, 2], "analytic": "NaN", "reference": "Infinity"}


def test_the_counts_add_up(example: Report) -> None:
    summary = document(example)["summary"]
    assert summary["checks"] == sum(list(summary.values())[2:])


def test_a_report_file_is_replaced_whole(tmp_path: Path, examples: dict[str, Report]) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    write_file(examples["section_9"], path)
    assert json.loads(path.read_text()) == document(examples["section_9"])
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, examples: dict[str, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "report.json"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_file(examples["section_9"], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_and_a_device_stay_what_they_are(tmp_path: Path, examples: dict[str, Report]) -> None:
    link, target = tmp_path / "link.json", tmp_path / "target.json"
    target.touch()
    link.symlink_to(target)
    write_file(examples["passes"], link)
    assert link.is_symlink()
    assert target.read_text().startswith("{")
    write_file(examples["passes"], os.devnull)
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("where", ["missing/report.json", "file/report.json", "folder"])
def test_where_nothing_can_be_written_is_a_usage_error(tmp_path: Path, examples: dict[str, Report], where: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot write the report") as caught:
        write_file(examples["passes"], tmp_path / where)
    assert caught.value.context
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
