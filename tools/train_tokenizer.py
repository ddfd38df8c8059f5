"""Trains a tokenizer on text.

    python tools/train_tokenizer.py --input='corpus/*.jsonl.zst' --output=tokenizer \\
        --vocab_size=32000 --model_type=bpe
"""

from absl import flags

from lmjax import cli
from lmjax.data import files, output, tokenizer, tokenizer_training

INPUT = flags.DEFINE_string("input", None, "files, globs, folders or URLs, comma-separated")
OUTPUT = flags.DEFINE_string("output", None, "folder or URL of the tokenizer")
VOCAB_SIZE = flags.DEFINE_integer(
    "vocab_size", 32_000, "number of ids, special tokens and bytes included", lower_bound=300
)
MODEL_TYPE = flags.DEFINE_enum("model_type", "bpe", ["unigram", "bpe"], "SentencePiece model")
CHARACTER_COVERAGE = flags.DEFINE_float(
    "character_coverage", 0.9995, "share of characters that get ids of their own", 0.98, 1.0
)
SAMPLE_BYTES = flags.DEFINE_integer(
    "sample_bytes", 100_000_000, "text to train on, spread over the files", lower_bound=1
)
TEXT_KEY = flags.DEFINE_string("text_key", "text", "field or column that holds the text")
TEXT_SPLIT = flags.DEFINE_enum(
    "text_split", "file", ["file", "paragraph", "line"], "what a document is in a .txt file"
)
flags.mark_flags_as_required(["input", "output"])


def main() -> None:
    """Trains, then says what came out and what to do next."""
    with output.folder(OUTPUT.value, marker=tokenizer.CONFIG_FILE, log=print) as folder:
        result = tokenizer_training.train(
            files.find_files(INPUT.value),
            folder,
            vocab_size=VOCAB_SIZE.value,
            model_type=MODEL_TYPE.value,
            character_coverage=CHARACTER_COVERAGE.value,
            sample_bytes=SAMPLE_BYTES.value,
            text_key=TEXT_KEY.value,
            text_split=TEXT_SPLIT.value,
            log=print,
        )
    print(f"{OUTPUT.value}: {result.vocab_size} ids, from {result.text_bytes / 1e6:.1f} MB of text")
    print(
        f"next: python tools/prepare_data.py --input='{INPUT.value}' --tokenizer={OUTPUT.value} "
        "--output=STORE"
    )


if __name__ == "__main__":
    cli.run(main)
