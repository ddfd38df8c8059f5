"""A command line run inside this process: as a user's, with what it prints and its exit code."""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from absl import flags

import lmjax.cli  # its flags stay

TOOLS = Path(__file__).parents[1] / "tools"
MAIN = Path(lmjax.cli.__file__).with_name("main.py")


class Done(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str


def run(tool, *arguments):
    """Runs "main" or the name of a tool; its flags are gone afterwards."""
    script = str(MAIN if tool == "main" else TOOLS / f"{tool}.py")
    out, err = io.StringIO(), io.StringIO()
    before = set(flags.FLAGS)
    with (
        mock.patch.object(sys, "argv", [script, *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(script, run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
            for name in before:
                flags.FLAGS[name].unparse()
            flags.FLAGS.unparse_flags()
    return Done(code, out.getvalue(), err.getvalue())
