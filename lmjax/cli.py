"""What the command lines share: how a script starts and how it ends.

Whatever goes wrong ends in one `error: CAUSE; FIX` line on stderr and exit code 1, an interrupt in
exit code 130. Tracebacks are printed with `--debug` only; that of a defect goes to a file.
"""

from __future__ import annotations

import logging as std_logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from lmjax import fields as fields_lib
from lmjax import foreign, redact
from lmjax.errors import UserError
from lmjax.exit_codes import ERROR, INTERRUPTED

_DEBUG = flags.DEFINE_bool(
    "debug", False, "Print tracebacks; a run also stops at its first NaN, naming where: slow."
)

Overrides = dict[str, Any]

_OVERRIDE = re.compile(r"--?config\.([\w.]+)(?:=(.*))?", re.DOTALL)


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, calls `main` and exits with what it returns (None: 0)."""
    _run(lambda overrides: main(), takes_overrides=False)


def run_with_overrides(main: Callable[[Overrides], int | None]) -> None:
    """As `run`; `main` gets the fields set by `--config.a.b=VALUE`, as {"a.b": value}."""
    _run(main, takes_overrides=True)


def debug() -> bool:
    """Whether `--debug` was given."""
    return _DEBUG.value


def _run(main: Callable[[Overrides], int | None], *, takes_overrides: bool) -> None:
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["debug"])  # --help has it
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
            logging.get_absl_logger().addFilter(_is_news)
        try:
            return main(parse_overrides(given))
        except (Exception, KeyboardInterrupt) as error:
            return _failed(error)

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
    print(f"error: {redact.redacted(' '.join(line.split()))}", file=sys.stderr, flush=True)
    return ERROR


def _is_news(record: std_logging.LogRecord) -> bool:
    """Whether a line of the libraries is worth the screen; Orbax also raises what it logs."""
    return "orbax" not in record.pathname


def _failed(error: BaseException) -> int:
    """Says in one line what an exception means for the user; returns the exit code for it."""
    if _DEBUG.value:
        traceback.print_exception(error)
    if foreign.is_interrupt(error):
        fail("interrupted; run the same command again")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # else the interpreter's last flush complains as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return fail(str(error) if isinstance(error, UserError) else _unexpected(error))


def _unexpected(error: Exception) -> str:
    """One line on an exception that no part of lmjax has put in words."""
    if (known := foreign.explain(error)) is not None:
        return known
    line = (
        f"{type(error).__name__}: {foreign.first_line(error)} (a defect of lmjax or of the machine)"
    )
    if _DEBUG.value:
        return f"{line}; send the traceback above with the output of tools/doctor.py"
    return (
        f"{line}; the traceback is in {_traceback_file(error)}: send it with the output of "
        "tools/doctor.py, or run again with --debug to see it"
    )


def _traceback_file(error: Exception) -> str:
    """The file that holds an exception's traceback: a run's log, or else a new file."""
    if (log := foreign.log_of(error)) is not None:
        return log
    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="lmjax_traceback_", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(redact.redacted(text))
    return file.name


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        missing = re.findall(r"Flag (--\w+) must have a value other than None", str(error))
        why = f"missing {', '.join(missing)}" if missing else str(error).rstrip(".")
        sys.exit(fail(f"{why}; --help lists the flags"))
