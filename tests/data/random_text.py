"""Documents of random words, some beyond ASCII."""

import json
from pathlib import Path

import numpy as np

WORDS = ["the", "of", "and", "whale", "sea", "white", "man", "boat", "time", "long", "great"]
WORDS += ["naïve", "café", "Ωmega", "東京", "emoji😀", "tab\there", "line\nbreak"]


def make_text(rng: np.random.Generator, num_words: int) -> str:
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), num_words))


def write_jsonl(path: Path, texts: list[str]) -> Path:
    lines = [json.dumps({"text": t}, ensure_ascii=False) for t in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
