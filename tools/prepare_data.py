"""Tokenises text into a store that training reads from. Run it again after an interruption.

python tools/prepare_data.py --input='corpus/*.jsonl.zst' --tokenizer=tokenizer --output=store
"""

import functools

from absl import flags

from lmjax import cli, paths
from lmjax.data import files, output, prepare, progress, store, verify

INPUT = flags.DEFINE_string("input", None, "files, globs, folders or URLs, comma-separated")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "folder or URL of the tokenizer")
OUTPUT = flags.DEFINE_string("output", None, "folder or URL of the store")
NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "threads that tokenise; default: one per core", lower_bound=1
)
EVAL_FRACTION = flags.DEFINE_float(
    "eval_fraction", 0.01, "share of documents held out, by hash", 0.0, 0.99
)
TEXT_KEY = flags.DEFINE_string("text_key", "text", "field or column that holds the text")
TEXT_SPLIT = flags.DEFINE_enum(
    "text_split", "file", ["file", "paragraph", "line"], "what a document is in a .txt file"
)
VERIFY = flags.DEFINE_bool("verify", False, "then read the whole store and check every SHA-256")
CACHE_DIR = flags.DEFINE_string(
    "cache_dir", paths.CACHE_DIR, "where the store of a URL is built before it goes there"
)
flags.mark_flags_as_required(["input", "tokenizer", "output"])

log = functools.partial(print, flush=True)


def main() -> None:
    """Prepares the store, then says what is in it and what to do next."""
    with output.folder(
        OUTPUT.value, marker=store.MANIFEST, cache_dir=CACHE_DIR.value, log=log
    ) as folder:
        with progress.shown("tokenising", log) as show:
            manifest = prepare.prepare(
                files.find_files(INPUT.value),
                TOKENIZER.value,
                folder,
                text_key=TEXT_KEY.value,
                text_split=TEXT_SPLIT.value,
                eval_fraction=EVAL_FRACTION.value,
                num_workers=NUM_WORKERS.value,
                progress=show,
                log=log,
            )
        if VERIFY.value:
            with progress.shown("verifying", log) as show:
                verify.verify(folder, show)
            log("verified: every file is what the manifest promises")
    log(f"{OUTPUT.value}: {progress.summary(manifest)}")
    where = f"--config.data.path={OUTPUT.value}"
    log(f"next: python -m lmjax.main --config=CONFIG --workdir=DIR {where}")


if __name__ == "__main__":
    cli.run(main)
