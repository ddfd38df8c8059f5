"""Writes the model of a workdir in the format of Hugging Face transformers.

python tools/export_hf.py --workdir=runs/gpt2_tiny --output=exported

The folder holds config.json and safetensors for a stock class (no code of ours is needed to load
it), in files of at most 5 GB, and the tokenizer for AutoTokenizer, compared with ours on some text.
Memory for one tensor is enough.
"""

import functools

from absl import flags

from lmjax import cli
from lmjax.data import output, progress

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or URL of the run; it may be going on.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder or URL to write.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Type of the weights.")
_TOKENIZER = flags.DEFINE_bool("tokenizer", True, "Whether the tokenizer goes along.")
flags.mark_flags_as_required(["workdir", "output"])

log = functools.partial(print, flush=True)


def main() -> None:
    """Exports the model, then says what it is to transformers."""
    from lmjax.export import to_hf

    with (
        output.new_folder(_OUTPUT.value, marker="config.json", log=log) as folder,
        progress.shown("exporting", log) as show,
    ):
        summary = to_hf.export(
            _WORKDIR.value,
            folder,
            step=_STEP.value,
            dtype=_DTYPE.value,
            with_tokenizer=_TOKENIZER.value,
            progress=show,
        )
    log(f"{_OUTPUT.value}: {summary}")


if __name__ == "__main__":
    cli.run(main)
