"""Raw text or HTML -> filtered, deduplicated text and a ledger of what went, and why.

python tools/curate.py --input='pages/*.jsonl.zst' --text_key=html --output=curated
python tools/prepare_data.py --input='curated/kept/*' --tokenizer=tokenizer --output=store

Run it again after an interruption: it goes on. Needs pip install -e '.[curate]'.
"""

import functools

from absl import flags
from rich.console import Console

from lmjax import cli, paths
from lmjax.data import files, output

_INPUT = flags.DEFINE_string("input", None, "Files, globs, folders or URLs, comma-separated.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder or URL: kept/, dropped/RULE/, ledger.json.")
_STEPS = flags.DEFINE_list(
    "steps",
    ["extract", "repair", "language", "quality", "pii", "dedup"],
    "What is done, of: extract, repair, language, quality, pii, dedup.",
)
_TEXT_KEY = flags.DEFINE_string("text_key", "text", "Field or column that holds text or HTML.")
_TEXT_SPLIT = flags.DEFINE_enum(
    "text_split", "file", ["file", "paragraph", "line"], "What a document is in a .txt file."
)
_SOURCE_KEY = flags.DEFINE_string(
    "source_key", "source", "Field that says where a document is from; else its file."
)
_LANGUAGES = flags.DEFINE_list("languages", [], "Codes (en, es, ...) that are kept; none: all.")
_LANGUAGE_THRESHOLD = flags.DEFINE_float(
    "language_threshold", 0.5, "Least probability of a document's language.", 0.0, 1.0
)
_LANGUAGE_MODEL = flags.DEFINE_string(
    "language_model", None, "A fastText file that tells languages; default: py3langid's."
)
_BLOCK_WORDS = flags.DEFINE_string("block_words", None, "File of words and phrases, one a line.")
_BLOCK_URLS = flags.DEFINE_string("block_urls", None, "File of domains and URLs, one a line.")
_BUNDLED_URLS = flags.DEFINE_bool(
    "bundled_urls", False, "Block domains, URLs and words in URLs that datatrove lists."
)
_CLASSIFIER = flags.DEFINE_string("classifier", None, "A fastText classifier, .bin or .ftz.")
_CLASSIFIER_LABEL = flags.DEFINE_string(
    "classifier_label", None, "Its label that documents are dropped for."
)
_CLASSIFIER_THRESHOLD = flags.DEFINE_float(
    "classifier_threshold", 0.5, "Least probability of that label.", 0.0, 1.0
)
_DECONTAMINATE = flags.DEFINE_string(
    "decontaminate", None, "Held-out files, globs or folders, comma-separated."
)
_DECONTAMINATE_WORDS = flags.DEFINE_integer(
    "decontaminate_words", 12, "Words in a row shared with them that drop one.", lower_bound=2
)
_MAX_SOURCE_BYTES = flags.DEFINE_integer(
    "max_source_bytes", None, "Bytes of text kept of each source.", lower_bound=1
)
_MAX_LANGUAGE_BYTES = flags.DEFINE_integer(
    "max_language_bytes", None, "Bytes of text kept of each language.", lower_bound=1
)
_TERMS = flags.DEFINE_string(
    "terms", None, "File of names, one a line, whose share before and after is counted."
)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "Folder of the tokenizer that counts; default: words and marks."
)
_SEED = flags.DEFINE_integer("seed", 0, "Another one keeps others under a cap.", lower_bound=0)
_EXECUTOR = flags.DEFINE_enum("executor", "local", ["local", "ray", "slurm"], "Where it runs.")
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "Tasks at a time; default: one per core.", lower_bound=1
)
_SLURM_PARTITION = flags.DEFINE_string("slurm_partition", None, "Of --executor=slurm.")
_SLURM_TIME = flags.DEFINE_string("slurm_time", "24:00:00", "Of each job of --executor=slurm.")
_CACHE_DIR = flags.DEFINE_string(
    "cache_dir", paths.CACHE_DIR, "Where the folder of a URL is built before it goes there."
)
flags.mark_flags_as_required(["input", "output"])

log = functools.partial(print, flush=True)


def main() -> None:
    """Curates, then shows the ledger and says what to do next."""
    from lmjax.curate import blocking, curation, ledger, recipe, report

    wanted = recipe.Recipe(
        steps=recipe.ordered(_STEPS.value),
        text_key=_TEXT_KEY.value,
        text_split=_TEXT_SPLIT.value,
        source_key=_SOURCE_KEY.value,
        languages=tuple(_LANGUAGES.value),
        language_threshold=_LANGUAGE_THRESHOLD.value,
        language_model=_LANGUAGE_MODEL.value,
        block_words=_BLOCK_WORDS.value,
        block_urls=_BLOCK_URLS.value,
        bundled_urls=_BUNDLED_URLS.value,
        classifier=_CLASSIFIER.value,
        classifier_label=_CLASSIFIER_LABEL.value,
        classifier_threshold=_CLASSIFIER_THRESHOLD.value,
        decontaminate=files.find_files(_DECONTAMINATE.value) if _DECONTAMINATE.value else (),
        decontaminate_words=_DECONTAMINATE_WORDS.value,
        max_source_bytes=_MAX_SOURCE_BYTES.value,
        max_language_bytes=_MAX_LANGUAGE_BYTES.value,
        terms=tuple(blocking.read_list(_TERMS.value)) if _TERMS.value else (),
        tokenizer=_TOKENIZER.value,
        seed=_SEED.value,
    )
    found = files.find_files(_INPUT.value)
    output.check_apart(_OUTPUT.value, found)
    slurm = {"partition": _SLURM_PARTITION.value, "time": _SLURM_TIME.value}
    with (
        output.folder(
            _OUTPUT.value, marker=ledger.FILE, cache_dir=_CACHE_DIR.value, log=log
        ) as folder,
        curation.shown(log) as show,
    ):
        made = curation.curate(
            found,
            folder,
            wanted,
            executor=_EXECUTOR.value,
            workers=_NUM_WORKERS.value,
            executor_settings=slurm if _EXECUTOR.value == "slurm" else {},
            progress=show,
            log=log,
        )
    if made is None:
        log(f"{_OUTPUT.value}: queued; the same command shows the ledger when the jobs are done")
        return
    Console(highlight=False).print(report.shown(made))
    log(f"{_OUTPUT.value}: {report.summary(made)}")
    kept = f"--input='{_OUTPUT.value.rstrip('/')}/kept/*'"
    log(f"next: python tools/prepare_data.py {kept} --tokenizer=TOKENIZER --output=STORE")


if __name__ == "__main__":
    cli.run(main)
