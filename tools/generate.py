"""Writes text with a trained model: what follows on a prompt, or what is hidden in it.

python tools/generate.py --workdir=runs/gpt2_tiny --prompt='The weather is' --temperature=0.8
python tools/generate.py --workdir=runs/t5_tiny --prompt='The <mask> sat on the <mask>.'
python tools/generate.py --workdir=runs/gpt2_tiny --input=lines.jsonl --output=completed.jsonl

A line has `prompt` or `prompt_ids` (for an encoder-decoder also `source` or `source_ids`) and comes
back with `completion`, `completion_ids`, `num_tokens` and `finish_reason`: eos, stop or length.
Where the prompt hides spans there is `filled`, too: the prompt with the spans in it. Without
--temperature it is the likeliest token each time. Free fields of the run's config may be set, such
as --config.mesh.preset=fsdp for a model that is too large for one device.
"""

import functools

from absl import flags

from lmjax import cli
from lmjax.data import output, progress
from lmjax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or URL of the run; it may be going on.")
_PROMPT = flags.DEFINE_string("prompt", None, "Text to go on with, or with <mask> to fill in.")
_INPUT = flags.DEFINE_string(
    "input", None, "JSON lines (.jsonl, .gz, .zst): files, globs or URLs, comma-separated."
)
_OUTPUT = flags.DEFINE_string("output", None, "File or URL that gets the lines back.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What is computed in.")
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "Most tokens that follow.")
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0: the likeliest tokens; 1: as they come.")
_TOP_K = flags.DEFINE_integer("top_k", None, "Only so many of the likeliest tokens.")
_TOP_P = flags.DEFINE_float("top_p", None, "Only the likeliest tokens that come to this share.")
_SEED = flags.DEFINE_integer("seed", 0, "Of what is drawn: the same seed, the same text.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "Completions of each prompt.")
_STOP = flags.DEFINE_multi_string("stop", [], "Text that ends a completion; may be repeated.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Most rows at a time; default: 4096 tokens.", lower_bound=1
)
flags.mark_flags_as_required(["workdir"])

log = functools.partial(print, flush=True)


def main(overrides: cli.Overrides) -> None:
    """Completes one prompt, or all lines of files."""
    from lmjax.infer import complete, jsonl
    from lmjax.infer.generate import Generator
    from lmjax.infer.prompts import Prompts
    from lmjax.infer.sampling import Sampling
    from lmjax.train import trained

    if (_PROMPT.value is None) == (_INPUT.value is None):
        both = "missing" if _PROMPT.value is None else "both given"
        raise UserError(
            f"--prompt and --input are {both}; give --prompt=TEXT or --input=FILE.jsonl"
        )
    if _INPUT.value is not None and _OUTPUT.value is None:
        raise UserError("--output is missing; give --output=FILE.jsonl for the completed lines")
    files = () if _INPUT.value is None else jsonl.find(_INPUT.value)
    if _OUTPUT.value is not None:
        output.check_apart(_OUTPUT.value, files)
    sampling = Sampling(_TEMPERATURE.value, _TOP_K.value, _TOP_P.value)
    if sampling.temperature == 0 and _NUM_SAMPLES.value > 1:
        raise UserError("--num_samples at temperature 0 are all alike; give --temperature=1, say")
    model = trained.load(_WORKDIR.value, step=_STEP.value, dtype=_DTYPE.value, overrides=overrides)
    log(f"{_WORKDIR.value}: {model.config.family} at step {model.step}")
    prompts = Prompts.of(model.config, model.tokenizer, model.begin_id)
    generator = Generator(
        model.model,
        model.batch_sharding,
        eos_id=model.tokenizer.eos_id,
        max_new_tokens=_MAX_NEW_TOKENS.value,
        decoder_start_id=model.decoder_start_id,
        forced_first_id=model.forced_first_id,
        sampling=sampling,
        allowed=prompts.allowed(),
        batch_size=_BATCH_SIZE.value,
    )
    more = _SEED.value, _NUM_SAMPLES.value, tuple(_STOP.value)
    completer = complete.Completer(prompts, generator, model.params, *more)
    if _PROMPT.value is not None:
        with model.context():
            completed = complete.one({"prompt": _PROMPT.value}, completer)
        if _OUTPUT.value is None:
            continues = model.config.model.architecture == "decoder"
            log(complete.shown(completed, continues=continues))
        else:
            with output.file(_OUTPUT.value) as stream:
                stream.writelines(map(jsonl.dumped, completed))
        return
    with (
        output.file(_OUTPUT.value) as stream,
        progress.shown("generating", log) as show,
        model.context(),
    ):
        summary = complete.complete(files, stream, completer, show)
    log(f"{_OUTPUT.value}: {summary}")


if __name__ == "__main__":
    cli.run_with_overrides(main)
