"""A parse that CPython's shared depth counter spoilt is tried again; what is wrong with the text is told."""

import ast

import pytest

from gradcheck import source


def test_a_spoilt_parse_is_tried_again(monkeypatch):
    real, calls = ast.parse, []

    def spoilt(text):
        calls.append(text)
        if len(calls) < source.TRIES:
            raise SystemError("AST constructor recursion depth mismatch (before=51, after=48)")
        return real(text)

    monkeypatch.setattr(source.ast, "parse", spoilt)
    assert isinstance(source.parse("x = 1"), ast.Module)
    assert len(calls) == source.TRIES


def test_what_is_wrong_with_the_text_is_told():
    with pytest.raises(SyntaxError):
        source.parse("def (:")


def test_one_expression_is_replaced_and_nothing_else():
    text = "é = stop(a + b) * 2  # ä\nc = 1\n"
    call = next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call))
    assert source.segment(text, call) == "stop(a + b)"
    assert source.replaced(text, call, source.argument_of(text, call.args[0])) == "é = (a + b) * 2  # ä\nc = 1\n"


def test_an_expression_of_several_lines_is_replaced():
    text = "x = where(c,\n    sqrt(a),\n    b)\ny = x\n"
    call = next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and len(n.args) == 3)
    assert source.replaced(text, call, "z") == "x = z\ny = x\n"
