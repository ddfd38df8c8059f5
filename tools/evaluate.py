"""Zero-shot choices: how often a model finds the right one of several texts for a context.

python tools/make_choices.py --input=held_out.jsonl --output=choices.jsonl
python tools/evaluate.py --workdir=runs/gpt2_tiny --tasks=choices.jsonl --output=results.json

A line has `context`, `choices` and `answer`, an index or the right one's text; perhaps `task` and
`id`. A choice stands where the context has <blank>, else behind it. Printed are accuracies in
percent with intervals of 95 %, beside chance and, where the run's tokens are on this machine or
--unigram_text is given, beside a unigram model. Free fields of the run's config may be set, as for
tools/score.py.
"""

import functools
import json

from absl import flags

from lmjax import cli
from lmjax.data import files as files_lib
from lmjax.data import output, progress
from lmjax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or URL of the run; it may be going on.")
_TASKS = flags.DEFINE_string(
    "tasks", None, "JSON lines (.jsonl, .gz, .zst): files, globs or URLs, comma-separated."
)
_OUTPUT = flags.DEFINE_string("output", None, "File or URL that gets everything as JSON.")
_UNIGRAM_TEXT = flags.DEFINE_string(
    "unigram_text", None, "Text of the unigram baseline; default: the run's own tokens."
)
_TEXT_KEY = flags.DEFINE_string("text_key", "text", "Field or column of --unigram_text.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What is computed in.")
_BATCH_TOKENS = flags.DEFINE_integer(
    "batch_tokens", 4096, "Tokens per batch, padding included: less for memory.", lower_bound=1
)
flags.mark_flags_as_required(["workdir", "tasks"])

log = functools.partial(print, flush=True)


def main(overrides: cli.Overrides) -> None:
    """Evaluates all lines; prints a table, writes the results."""
    from lmjax.infer import evaluate, jsonl
    from lmjax.infer.choice import ChoiceFraming
    from lmjax.infer.score import Scorer
    from lmjax.train import trained

    files = jsonl.find(_TASKS.value)
    if _OUTPUT.value is not None:
        output.check_apart(_OUTPUT.value, files)
    model = trained.load(_WORKDIR.value, step=_STEP.value, dtype=_DTYPE.value, overrides=overrides)
    log(f"{_WORKDIR.value}: {model.config.family} at step {model.step}")
    frame = ChoiceFraming(
        model.framing,
        model.description,
        trained.special_ids(model.config, model.tokenizer)["bos"],
        trained.sentinel_ids(model.config, model.tokenizer),
    )
    scorer = Scorer(
        model.model, model.params, model.batch_sharding, batch_tokens=_BATCH_TOKENS.value
    )
    unigram = _unigram(model)
    with progress.shown("evaluating", log) as show, model.context():
        results = list(evaluate.evaluate(files, frame, scorer, unigram=unigram, progress=show))
    if not results:
        raise UserError(f"{_TASKS.value}: no lines; give one object with a choice per line")
    _show(evaluate.summaries(results))
    if _OUTPUT.value is not None:
        said = {"family": model.config.family, "step": model.step, "dtype": _DTYPE.value}
        content = json.dumps(evaluate.as_json(results, said), ensure_ascii=False, indent=1)
        with output.file(_OUTPUT.value) as stream:
            stream.write(f"{content}\n".encode())
        log(f"{_OUTPUT.value}: {len(results):,} lines")


def _unigram(model):
    """Log-probabilities of ids, float32 [V]; None where nothing says them."""
    from lmjax.train import unigram

    if _UNIGRAM_TEXT.value is not None:
        files = files_lib.find_files(_UNIGRAM_TEXT.value)
        return unigram.of_text(files, model.tokenizer, _TEXT_KEY.value)
    found = unigram.of_run(_WORKDIR.value, model)
    if found is None:
        log("no unigram baseline: the run's tokens are not here; give --unigram_text=FILES")
    return found


def _show(summaries: list) -> None:
    from rich.table import Table

    from lmjax.train.console import make_console

    ways = list(summaries[0].accuracy)
    names = [way.replace("_", " ") for way in ways]
    table = Table("task", "lines", "chance", *names, box=None)
    for one in summaries:
        found = [str(one.accuracy[way]) for way in ways]
        table.add_row(one.task, f"{one.num_items:,}", f"{100 * one.chance:.1f}", *found)
    make_console().print(table, markup=False)


if __name__ == "__main__":
    cli.run_with_overrides(main)
