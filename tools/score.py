"""Scores text, or ids, with a trained model: adds `logprob` (nats) and `num_tokens` to each line.

python tools/score.py --workdir=runs/gpt2_tiny --input=lines.jsonl --output=scored.jsonl

A line of a decoder has `text` or `token_ids`; of an encoder the same and, where its tokenizer names
no mask, `mask_id` (its score is the pseudo-log-likelihood); of an encoder-decoder `source` and
`target`, or `source_ids` and `target_ids`. Text gets the special tokens that the objective put
around it. Free fields of the run's config may be set, such as
--config.mesh.preset=fsdp for a model that is too large for one device.
"""

import functools

from absl import flags

from lmjax import cli
from lmjax.data import output, progress

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or URL of the run; it may be going on.")
_INPUT = flags.DEFINE_string(
    "input", None, "JSON lines (.jsonl, .gz, .zst): files, globs or URLs, comma-separated."
)
_OUTPUT = flags.DEFINE_string("output", None, "File or URL that gets the lines back.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What is computed in.")
_BATCH_TOKENS = flags.DEFINE_integer(
    "batch_tokens", 4096, "Tokens per batch, padding included: less for memory.", lower_bound=1
)
flags.mark_flags_as_required(["workdir", "input", "output"])

log = functools.partial(print, flush=True)


def main(overrides: cli.Overrides) -> None:
    """Scores all lines, then says what they came to."""
    from lmjax.infer import jsonl
    from lmjax.infer.score import Scorer
    from lmjax.train import trained

    files = jsonl.find(_INPUT.value)
    output.check_apart(_OUTPUT.value, files)
    model = trained.load(_WORKDIR.value, step=_STEP.value, dtype=_DTYPE.value, overrides=overrides)
    log(f"{_WORKDIR.value}: {model.config.family} at step {model.step}")
    scorer = Scorer(
        model.model, model.params, model.batch_sharding, batch_tokens=_BATCH_TOKENS.value
    )
    with (
        output.file(_OUTPUT.value) as stream,
        progress.shown("scoring", log) as show,
        model.context(),
    ):
        summary = jsonl.score(files, stream, model.framing, scorer, show)
    log(f"{_OUTPUT.value}: {summary}")


if __name__ == "__main__":
    cli.run_with_overrides(main)
