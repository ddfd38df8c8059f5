"""What the command lines share: how a script starts and how it ends.

A mistake the user can mend (`UserError`, a wrong flag) ends in one `error: ...` line on stderr and
exit code 1, an interrupt in exit code 130. Anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from lmjax import fields as fields_lib
from lmjax.errors import UserError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


Overrides = dict[str, Any]

_OVERRIDE = re.compile(r"--?config\.([\w.]+)(?:=(.*))?", re.DOTALL)


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, calls `main` and exits with what it returns (None: 0)."""
    _run(lambda overrides: main(), takes_overrides=False)


def run_with_overrides(main: Callable[[Overrides], int | None]) -> None:
    """As `run`; `main` gets the fields set by `--config.a.b=VALUE`, as {"a.b": value}."""
    _run(main, takes_overrides=True)


def _run(main: Callable[[Overrides], int | None], *, takes_overrides: bool) -> None:
    given: list[str] = []

    def parse(argv: list[str]) -> list[str]:
        if takes_overrides:
            given.extend(arg for arg in argv[1:] if _OVERRIDE.fullmatch(arg))
        return _parse_flags([arg for arg in argv if arg not in given])

    def guarded(argv: list[str]) -> int | None:
        if len(argv) > 1:
            return fail(f"unexpected argument {argv[1]!r}; flags are written --name=value")
        if not flags.FLAGS["verbosity"].present:  # the libraries' own chatter
            logging.set_verbosity(logging.WARNING)
        try:
            return main(parse_overrides(given))
        except UserError as error:
            return fail(str(error))
        except KeyboardInterrupt:
            fail("interrupted")
            return EXIT_INTERRUPTED

    app.run(guarded, flags_parser=parse)


def parse_overrides(arguments: list[str]) -> Overrides:
    """["--config.a.b=VALUE", ...] -> {"a.b": value}.

    Raises:
      UserError: an unknown field, or no value.
    """
    overrides: Overrides = {}
    for argument in arguments:
        name, text = _OVERRIDE.fullmatch(argument).groups()
        if text is None:
            raise UserError(f"{argument} has no value; write {argument}=VALUE")
        overrides[name] = fields_lib.parse_value(name, text)
    return overrides


def step_range(text: str) -> range:
    """ "A:B" -> range(A, B).

    Raises:
      UserError: it is no such thing, or empty.
    """
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise UserError(f"--steps={text} is no range; write --steps=A:B with A below B")
    return range(int(found[1]), int(found[2]))


def fail(line: str) -> int:
    """Prints the one line that says what is wrong; returns the exit code for it."""
    print(f"error: {' '.join(line.split())}", file=sys.stderr, flush=True)
    return EXIT_ERROR


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        missing = re.findall(r"Flag (--\w+) must have a value other than None", str(error))
        why = f"missing {', '.join(missing)}" if missing else str(error).rstrip(".")
        sys.exit(fail(f"{why}; --help lists the flags"))
