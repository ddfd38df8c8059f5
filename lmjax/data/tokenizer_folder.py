"""The folder of a tokenizer: a config file that says of what type it is, and others beside it."""

from __future__ import annotations

import json
import os
from typing import Any

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.errors import UserError

CONFIG_FILE = "tokenizer_config.json"
FORMAT = 1
MAX_BYTES = 64 << 20  # of a file; the largest that are published have half of it
MAX_IDS = 1 << 22  # four times as many as the largest has
RESTORE = "copy the tokenizer again or train it anew"


def read(folder: str | os.PathLike, name: str) -> bytes:
    """Content of a file, local or of a URL.

    Raises:
      UserError: it is missing, or larger than any such file.
    """
    content = paths.read_bytes(paths.join(folder, name), MAX_BYTES)
    if content is None:
        raise UserError(
            f"{folder}: not a tokenizer ({name} is missing); train one with "
            "tools/train_tokenizer.py"
        )
    return content


def check_num_ids(number: Any) -> None:
    """Raises ValueError if `number`, of a file, is no number of ids that a tokenizer can have."""
    if type(number) is not int or not 0 < number <= MAX_IDS:
        raise ValueError(f"{number!r:.40} is no number of ids; there are at most {MAX_IDS:,}")


def write_config(folder: str | os.PathLike, config: dict[str, Any]) -> None:
    """Writes the config file to an existing local folder."""
    content = json.dumps(config, indent=2) + "\n"
    files_lib.write_whole(os.path.join(folder, CONFIG_FILE), content.encode())
