"""Writes the model of a workdir in the format of Hugging Face transformers.

python tools/export_hf.py --workdir=runs/gpt2_tiny --output=exported
python tools/export_hf.py --workdir=runs/gpt2_tiny --push_to_hub=OWNER/NAME --license=apache-2.0

The folder holds config.json and safetensors for a stock class (no code of ours is needed to load
it), in files of at most 5 GB, a model card made from the run's own files, and SHA256SUMS. Memory
for one tensor is enough. A repository on the Hub is made where there is none: private, unless
--noprivate is given. The token is that of `hf auth login` or HF_TOKEN.
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
    from lmjax.export import hub

    if _OUTPUT.value is None and _PUSH.value is None:
        raise UserError("nowhere to write to; give --output=FOLDER, --push_to_hub=OWNER/NAME, both")
    if _PUSH.value is None:
        _export(_OUTPUT.value)
        return
    hub.check_name(_PUSH.value)
    if _OUTPUT.value is not None:
        if paths.is_remote(_OUTPUT.value):
            raise UserError("--push_to_hub uploads a local folder; give a local --output, or none")
        _export(_OUTPUT.value)
        _push(_OUTPUT.value)
        return
    hub.check_token()  # without it all would be for nothing
    with tempfile.TemporaryDirectory(prefix="lmjax_export_") as folder:
        _export(os.path.join(folder, "model"))
        _push(os.path.join(folder, "model"))


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
            progress=show,
        )
    log(f"{_OUTPUT.value or _PUSH.value}: {summary}")


def _push(folder: str) -> None:
    from lmjax.export import hub

    url = hub.push(os.path.expanduser(folder), _PUSH.value, private=_PRIVATE.value)
    seen = "private" if _PRIVATE.value else "public"
    log(f"{url}: uploaded; a new repository is {seen}, one that was there stays as it was")


if __name__ == "__main__":
    cli.run(main)
