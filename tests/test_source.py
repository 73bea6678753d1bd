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
