"""Makes a workdir of a model in the format of Hugging Face transformers.

python tools/import_hf.py --input=downloaded/bert-base-uncased --output=runs/bert_imported

The folder holds config.json, safetensors and, if text is to go in, the tokenizer's files. What it
says nothing of, the recipe of further training, may be set: --config.optimizer.learning_rate=1e-4.
The workdir goes on training,
evaluates, scores and exports like any other; another run starts from its weights with
--config.train.init_from=runs/bert_imported.
"""

import functools

from absl import flags

from lmjax import cli
from lmjax.data import output, progress

_INPUT = flags.DEFINE_string("input", None, "Folder with config.json and safetensors.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder or URL of the new workdir.")
flags.mark_flags_as_required(["input", "output"])

log = functools.partial(print, flush=True)


def main(overrides: cli.Overrides) -> None:
    """Imports the model, then says what it is and what to do next."""
    from lmjax.export import from_hf

    with output.new_folder(_OUTPUT.value, marker="config.json", log=log) as folder:
        published = from_hf.check(_INPUT.value)
        config = from_hf.config_of(published, overrides)
        with progress.shown("importing", log) as show:
            from_hf.write(published, config, folder, show)
    log(f"{_OUTPUT.value}: {from_hf.summary(published)}")
    log(f"next: python tools/score.py --workdir={_OUTPUT.value} --input=FILE.jsonl --output=FILE")


if __name__ == "__main__":
    cli.run_with_overrides(main)
