"""What the command lines share: how a script starts and how it ends.

A mistake the user can mend (`UserError`, a wrong flag) ends in one `error: ...` line on stderr and
exit code 1, an interrupt in exit code 130. Anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from absl import app, flags

from lmjax.errors import UserError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, calls `main` and exits with what it returns (None: 0)."""

    def guarded(argv: list[str]) -> int | None:
        if len(argv) > 1:
            return fail(f"unexpected argument {argv[1]!r}; flags are written --name=value")
        try:
            return main()
        except UserError as error:
            return fail(str(error))
        except KeyboardInterrupt:
            fail("interrupted")
            return EXIT_INTERRUPTED

    app.run(guarded, flags_parser=_parse_flags)


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
