"""Errors that compiled functions raise while they run, in the words that a user needs: what, in which op, at which line.

Runs inside a backend's interpreter: Python >= 3.9. The frameworks add shapes, strides and the traces of all outer functions.
"""

import contextlib
import os
import re

import gradcheck_worker
import numpy
from gradcheck_worker.problem import StepError

NODE = "Apply node that caused the error:"


@contextlib.contextmanager
def in_few(framework):
    """Turn what a compiled function raises into a StepError that knows its place."""
    try:
        yield
    except StepError:
        raise
    except Exception as error:
        text = "\n".join([str(error), *getattr(error, "__notes__", [])])  # PyTensor adds its own as notes
        if NODE not in text:
            raise
        told = StepError(brief(error, text))
        told.place = place(framework, text)
        raise told from error


def brief(error, text):
    """The error's kind and words, and the op that raised it, in one line. text: all that the framework says."""
    words = " ".join(text.partition(NODE)[0].split())
    op = re.search(re.escape(NODE) + r"\s*([^\n(]+)", text)
    return f"{type(error).__name__}: {words}" + (f" (in {op.group(1).strip()})" if op else "")


def place(framework, text):
    """[file, line] of the user's innermost frame that made the op; None where there is none: a gradient made it."""
    own = [os.path.dirname(os.path.abspath(m.__file__)) for m in (framework, framework.module, numpy, gradcheck_worker)]
    made = text.partition("Backtrace when the node is created")[2].partition("HINT")[0]
    frames = re.findall(r'File "([^"]+)", line (\d+)', made)
    theirs = [
        (file, int(line))
        for file, line in frames
        if os.path.isfile(file) and not file.startswith(tuple(f + os.sep for f in own))
    ]
    return list(theirs[-1]) if theirs else None
