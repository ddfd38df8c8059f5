"""An exported folder -> a repository of the Hugging Face Hub.

The token comes from the environment or from `hf auth login`, the address from HF_ENDPOINT, both as
huggingface_hub finds them; neither is a flag, and the token is in no line that is printed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from lmjax.errors import UserError

# Left over from an earlier export of more shards, these would be loaded in place of the new ones.
_REPLACED = ["*.safetensors", "*.safetensors.index.json"]


def check_name(repo: str) -> None:
    """Raises UserError if `repo` is no OWNER/NAME that the Hub takes."""
    try:
        validate_repo_id(repo)
    except HFValidationError:
        pass
    else:
        if repo.count("/") == 1:
            return
    raise UserError(
        f"--push_to_hub={repo!r} is no name of a repository; write OWNER/NAME, of letters, digits, "
        "'-', '_' and '.', at most 96 characters"
    )


def check_token() -> str:
    """The token of this user.

    Raises:
      UserError: there is none.
    """
    token = huggingface_hub.get_token()
    if token is None:
        raise UserError(
            "--push_to_hub needs a token of the Hugging Face Hub and finds none; run "
            "`hf auth login` or set HF_TOKEN (a token with write access)"
        )
    return token


def push(folder: str, repo: str, *, private: bool) -> str:
    """Uploads all files of a folder; weights that are not among them are deleted there.

    Args:
      folder: a finished export.
      repo: OWNER/NAME; created where it is not there.
      private: whether it is then seen by its owner alone; one that is there stays as it is.

    Returns:
      Its URL.

    Raises:
      UserError: no token, or the Hub cannot be reached or refuses; nothing of it holds the token.
    """
    token, api = check_token(), huggingface_hub.HfApi()
    with _errors(f"{api.endpoint}/{repo}", token):
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message="Export from lmjax",
            delete_patterns=_REPLACED,
        )
    return f"{api.endpoint}/{repo}"


@contextlib.contextmanager
def _errors(url: str, token: str) -> Iterator[None]:
    """What goes wrong inside, in one line of cause and fix."""
    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        said = getattr(error, "server_message", None) or str(error)
        why = " ".join(said.replace(token, "***").split())[:200] or type(error).__name__
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        raise UserError(f"{url}: {_explained(status, why)}") from None


def _explained(status: int | None, why: str) -> str:
    if status == 401:
        return f"the Hub does not know the token ({why}); run `hf auth login` or renew HF_TOKEN"
    if status == 403:
        return (
            f"the token may not write there ({why}); give one with write access, or a repository "
            "of your own"
        )
    if status is not None and status < 500:
        return f"the Hub refuses the upload ({status}: {why}); mend what it names"
    return (
        f"the Hub cannot be reached or used ({why}); check network and HF_ENDPOINT, then push again"
    )
