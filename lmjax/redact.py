"""What must not be written down: credentials in URLs, and secrets of the environment.

Credentials come from where the clients of a store look for them (environment, files of their own),
never from a path: paths are written to config.json, logs and messages.
"""

from __future__ import annotations

import os
import re
from itertools import filterfalse

from lmjax.errors import UserError

# Words or ends of words: neither TOKENIZER nor AUTHOR.
_SECRET_NAME = re.compile(
    r"(?:token|key|secret|password|passwd|passphrase|credential|auth|authori[sz]ation)s?(?![a-z])",
    re.IGNORECASE,
)
_SHORTEST = 8  # characters; what is shorter is a flag or a number, and would hit innocent words
# Before @: a name and a password, or whatever there is in front of a web server. Elsewhere a name
# alone is a user's, a container's or a revision's.
_LOGIN = re.compile(r"(?:(?<=http://)|(?<=https://))[^/\s@]+@|(?<=://)[^/\s@:]*:[^/\s@]*@")
_SIGNED = re.compile(
    r"([?&](?:[\w-]*signature|[\w-]*token|sig|api[_-]?key|password)=)[^&\s'\"]+", re.IGNORECASE
)
_SAID = "***"


def redacted(text: str) -> str:
    """Text in which secrets of the environment and of URLs are starred out."""
    text = _SIGNED.sub(rf"\1{_SAID}", _LOGIN.sub(f"{_SAID}@", text))
    for value in _secrets():
        text = text.replace(value, _SAID)
    return text


def check_url(url: str | os.PathLike, name: str = "") -> None:
    """Raises UserError if a URL, or a text with several, holds credentials.

    Args:
      url: as the user gives it; a local path holds none.
      name: of the flag or field that it stands in.
    """
    url = os.fspath(url)
    if "://" not in url or not (_LOGIN.search(url) or _SIGNED.search(url)):
        return
    where = f"{name}=" if name else ""
    raise UserError(
        f"{where}{redacted(url)}: holds credentials, and paths are written to config.json and "
        "logs; leave them out, and give them to the client of that store (environment or its own "
        "files), or fetch the file first"
    )


def _secrets() -> list[str]:
    """Values of the environment that names call secret, longest first."""
    found = {v for k, v in os.environ.items() if _SECRET_NAME.search(k) and len(v) >= _SHORTEST}
    return sorted(filterfalse(_is_path, found), key=len, reverse=True)


def _is_path(value: str) -> bool:
    """Whether it says where a secret, or the socket of an agent, is: no secret, and in messages."""
    return os.path.isabs(value) and os.path.exists(value)
