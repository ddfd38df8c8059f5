"""Makes a table of choices for tools/evaluate.py from plain documents.

python tools/make_choices.py --input=held_out.jsonl --output=choices.jsonl

Each line has some words of a document as context and four passages of it as choices: the right one
follows, the others are from elsewhere in it. Of a text that was trained on, --eval_fraction takes
the documents that training held out: give what the run has as data.eval_fraction.
"""

import functools
import json

from absl import flags

from lmjax import cli
from lmjax.data import choices, files, output

_INPUT = flags.DEFINE_string("input", None, "Files, globs, folders or URLs, comma-separated.")
_OUTPUT = flags.DEFINE_string("output", None, "File or URL of the table, .jsonl.")
_NUM_ITEMS = flags.DEFINE_integer("num_items", 1000, "Lines to make.", lower_bound=1)
_CONTEXT = flags.DEFINE_integer("context_words", 48, "Words of a context.", lower_bound=1)
_CHOICE = flags.DEFINE_integer("choice_words", 16, "Words of a choice.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Another one makes other lines.", lower_bound=0)
_EVAL_FRACTION = flags.DEFINE_float(
    "eval_fraction", None, "Take only documents held out with this share.", 0.0, 1.0
)
_TEXT_KEY = flags.DEFINE_string("text_key", "text", "Field or column that holds the text.")
_TEXT_SPLIT = flags.DEFINE_enum(
    "text_split", "file", ["file", "paragraph", "line"], "What a document is in a .txt file."
)
flags.mark_flags_as_required(["input", "output"])

log = functools.partial(print, flush=True)


def main() -> None:
    """Makes the lines, then says how many there are."""
    found = files.find_files(_INPUT.value)
    output.check_apart(_OUTPUT.value, found)
    with output.file(_OUTPUT.value) as stream:
        made = choices.make(
            found,
            _NUM_ITEMS.value,
            context_words=_CONTEXT.value,
            choice_words=_CHOICE.value,
            seed=_SEED.value,
            text_key=_TEXT_KEY.value,
            text_split=_TEXT_SPLIT.value,
            eval_fraction=_EVAL_FRACTION.value,
        )
        for line in made:
            stream.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())
    log(f"{_OUTPUT.value}: {len(made):,} lines of {choices.NUM_CHOICES} choices")


if __name__ == "__main__":
    cli.run(main)
