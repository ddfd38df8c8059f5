"""Writes the model of a workdir in the format of Hugging Face transformers.

python tools/export_hf.py --workdir=runs/gpt2_tiny --output=exported
python tools/export_hf.py --workdir=runs/gpt2_tiny --push_to_hub=OWNER/NAME --license=apache-2.0

The folder holds config.json and safetensors for a stock class (no code of ours is needed to load
it), in files of at most 5 GB, the tokenizer for AutoTokenizer, compared with ours on some text, a
model card made from the run's own files, and SHA256SUMS. Memory for one tensor is enough. A
repository on the Hub is made where there is none: private, unless --noprivate is given. The token
is that of `hf auth login` or HF_TOKEN.
"""

import functools
import os
import re
import tempfile

from absl import flags

from lmjax import cli, paths
from lmjax.data import output, progress
from lmjax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or URL of the run; it may be going on.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder or URL to write.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Type of the weights.")
_TOKENIZER = flags.DEFINE_bool("tokenizer", True, "Whether the tokenizer goes along.")
_LICENSE = flags.DEFINE_string("license", None, "For the card: the Hub's identifier of a licence.")
flags.register_validator(
    "license",
    lambda value: value is None or re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,39}", value),
    "write the Hub's identifier, such as apache-2.0, mit, cc-by-4.0 or other",
)
_PUSH = flags.DEFINE_string("push_to_hub", None, "OWNER/NAME to upload the folder to.")
_PRIVATE = flags.DEFINE_bool(
    "private", True, "A repository that is made is seen by its owner only."
)
flags.mark_flag_as_required("workdir")

log = functools.partial(print, flush=True)


def main() -> None:
    """Exports the model, says what it is to transformers, and uploads it where that is asked."""
    if _OUTPUT.value is None and _PUSH.value is None:
        raise UserError(
            "nowhere to write to; give --output=FOLDER, --push_to_hub=OWNER/NAME, or both"
        )
    if _PUSH.value is None:
        _export(_OUTPUT.value)
    else:
        _export_and_push(_OUTPUT.value, _PUSH.value)


def _export_and_push(folder: str | None, repo: str) -> None:
    from lmjax.export import hub

    hub.check_name(repo)
    if folder is None:
        hub.check_token()  # without it all would be for nothing
        with tempfile.TemporaryDirectory(prefix="lmjax_export_") as temporary:
            folder = os.path.join(temporary, "model")
            _export(folder)
            _push(folder, repo)
        return
    if paths.is_remote(folder):
        raise UserError("--push_to_hub uploads a local folder; give a local --output, or none")
    _export(folder)
    try:
        _push(folder, repo)
    except UserError as error:
        again = f"hf upload {repo} {folder}"
        raise UserError(f"{error}. The exported folder stays; `{again}` uploads it") from None


def _export(folder: str) -> None:
    from lmjax.export import to_hf

    with (
        output.new_folder(folder, marker="config.json", log=log) as partial,
        progress.shown("exporting", log) as show,
    ):
        summary = to_hf.export(
            _WORKDIR.value,
            partial,
            step=_STEP.value,
            dtype=_DTYPE.value,
            repo=_PUSH.value,
            license=_LICENSE.value,
            with_tokenizer=_TOKENIZER.value,
            progress=show,
        )
    log(f"{_OUTPUT.value or _PUSH.value}: {summary}")


def _push(folder: str, repo: str) -> None:
    from lmjax.export import hub

    url = hub.push(os.path.expanduser(folder), repo, private=_PRIVATE.value)
    seen = "private" if _PRIVATE.value else "public"
    log(f"{url}: uploaded; a new repository is {seen}, one that was there stays as it was")


if __name__ == "__main__":
    cli.run(main)
