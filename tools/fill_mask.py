"""Fills the masks of a text with an encoder: each mask's likeliest pieces.

python tools/fill_mask.py --workdir=runs/bert_tiny --text="The capital of <mask> is <mask>."
python tools/fill_mask.py --workdir=runs/bert_tiny --input=lines.jsonl --output=filled.jsonl

`<mask>` is the mask, whatever the tokenizer calls it. Lines have `text` and come back with `masks`:
for each mask a list of `token`, `id` and `probability`. Free fields of the run's config may be set,
as for tools/score.py.
"""

import functools

from absl import flags

from lmjax import cli
from lmjax.data import output, progress
from lmjax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or URL of the run; it may be going on.")
_TEXT = flags.DEFINE_string("text", None, "Text with <mask> in it.")
_INPUT = flags.DEFINE_string(
    "input", None, "JSON lines (.jsonl, .gz, .zst): files, globs or URLs, comma-separated."
)
_OUTPUT = flags.DEFINE_string("output", None, "File or URL that gets the lines back.")
_TOP_K = flags.DEFINE_integer("top_k", 5, "Pieces proposed for each mask.", lower_bound=1)
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What is computed in.")
_BATCH_TOKENS = flags.DEFINE_integer(
    "batch_tokens", 4096, "Tokens per batch, padding included: less for memory.", lower_bound=1
)
flags.mark_flags_as_required(["workdir"])

log = functools.partial(print, flush=True)


def main(overrides: cli.Overrides) -> None:
    """Prints a table of the text's masks, or writes those of the lines."""
    from lmjax.infer import fill_mask, jsonl
    from lmjax.train import trained

    files = _files(jsonl.find)
    model = trained.load(_WORKDIR.value, step=_STEP.value, dtype=_DTYPE.value, overrides=overrides)
    frame = fill_mask.MaskFraming(model.framing)
    filler = fill_mask.Filler(
        model.model,
        model.params,
        model.batch_sharding,
        model.tokenizer,
        top_k=_TOP_K.value,
        batch_tokens=_BATCH_TOKENS.value,
    )
    if files is None:
        example = frame({"text": _TEXT.value})
        with model.context():
            (found,) = filler([example])
        _show(fill_mask.described(example, found, model.tokenizer))
        return
    log(f"{_WORKDIR.value}: {model.config.family} at step {model.step}")
    num_lines = 0
    with (
        output.file(_OUTPUT.value) as stream,
        progress.shown("filling", log) as show,
        model.context(),
    ):
        for lines, on_batch in jsonl.read(files, show):
            examples = jsonl.made(lines, frame)
            for line, *pair in zip(lines, examples, filler(examples, on_batch), strict=True):
                masks = fill_mask.described(*pair, model.tokenizer)
                stream.write(jsonl.dumped(line.record | {"masks": masks}))
            num_lines += len(lines)
    log(f"{_OUTPUT.value}: {num_lines:,} lines")


def _files(find) -> tuple[str, ...] | None:
    """The files of lines; None: there is a text instead."""
    if (_TEXT.value is None) == (_INPUT.value is None):
        raise UserError("nothing to fill, or too much; give either --text or --input")
    if _INPUT.value is None:
        return None
    if _OUTPUT.value is None:
        raise UserError("--input has no --output; give --output=FILE for the filled lines")
    files = find(_INPUT.value)
    output.check_apart(_OUTPUT.value, files)
    return files


def _show(masks: list[list[dict]]) -> None:
    from rich.table import Table

    from lmjax.train.console import make_console

    single = len(masks) == 1
    table = Table("piece", "probability", *["text"] * single, box=None)
    if not single:
        table = Table("mask", "piece", "probability", box=None)
    for number, candidates in enumerate(masks, 1):
        for rank, entry in enumerate(candidates):
            shown = [_plain(entry["token"]), f"{entry['probability']:.4f}"]
            shown += [_plain(entry["sequence"])] if single else []
            table.add_row(*([] if single else [str(number) if rank == 0 else ""]), *shown)
    make_console().print(table)


def _plain(text: str):
    from rich.text import Text

    return Text(text.replace("\n", "\\n"))


if __name__ == "__main__":
    cli.run_with_overrides(main)
