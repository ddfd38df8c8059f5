"""The one exception whose text is written for the user.

Whoever raises `UserError` writes one line: what is wrong, then what to do about it. The command
lines print it as it stands and leave with exit code 1; any other exception is explained by
`lmjax.foreign`, or is a defect of lmjax, whose traceback goes to a file.
"""


class UserError(Exception):
    """A mistake or a condition that the user can mend; its text is one line of cause and fix."""


def shown(value: object) -> str:
    """What a user wrote, as a line can hold it."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def reason(error: BaseException) -> str:
    """What an exception says against a file, in one short line."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    return " ".join(str(error).split())[:200] or type(error).__name__
