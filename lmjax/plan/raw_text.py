"""How much of raw text is kept, by the ledger of a curation."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lmjax import paths
from lmjax.errors import UserError
from lmjax.plan import cost


def keep_rates(path: str | None) -> Sequence[float]:
    """Shares of the bytes that are kept: the ledger's one or, without a ledger, a range.

    Raises:
      UserError: there is no ledger at `path`, or nothing came through.
    """
    if path is None:
        return cost.KEEP_RATES
    content = paths.read_bytes(path)
    if content is None:
        raise UserError(f"--ledger={path} is not there; name the ledger.json of a curation")
    try:
        summary = json.loads(content)["summary"]
        share = summary["bytes kept"] / summary["bytes in"]
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(
            f"--ledger={path} is no ledger of a curation ({type(error).__name__}: {error}); name "
            "the ledger.json that tools/curate.py wrote"
        ) from error
    if not 0 < share <= 1:
        raise UserError(f"--ledger={path} says that {share:.2%} of the text is kept; name another")
    return (share,)
