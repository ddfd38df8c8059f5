"""What a curation does, all of it: one frozen value, which the ledger repeats.

The numbers of the rules are those of the papers and of the engine (datatrove), where they have
their names: Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A.1), C4 (Raffel et al. 2020),
FineWeb (Penedo et al. 2024, arXiv:2406.17557).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmjax.errors import UserError

STEPS = ("extract", "repair", "language", "quality", "pii", "dedup")


@dataclass(frozen=True)
class MinHash:
    """Near-duplicates: `num_buckets` chances to agree in `hashes_per_bucket` minima each (LSH).

    Texts of Jaccard similarity s over `n_grams` words are found with the probability
    1 - (1 - s^hashes)^buckets. A text that was found goes only if one that stays has as large a
    share of its minima as `min_similarity`: 0.6 leaves those of s < 0.5, but for one in 250.
    """

    n_grams: int = 5
    num_buckets: int = 20
    hashes_per_bucket: int = 9
    min_similarity: float = 0.6


@dataclass(frozen=True)
class Recipe:
    """Of one curation.

    Attributes:
      steps: of `STEPS`, in that order.
      text_key: field or column of the text, or of the HTML.
      text_split: what one document is in a .txt file.
      source_key: field that says where a document is from; its file where it has none.
      languages: codes (ISO 639-1) that are kept; empty: all.
      language_threshold: least probability of the language; below it a document is dropped.
      language_model: a fastText file that tells languages; None: py3langid's own model.
      block_words, block_urls: files of words, and of domains or URLs, one a line; None: none.
      bundled_urls: whether the engine's own lists of domains, URLs and words in them are used.
      classifier: a fastText file; None: none.
      classifier_label, classifier_threshold: documents are dropped from this probability of this
        label on.
      decontaminate: held-out files; a document that shares `decontaminate_words` words in a row
        with one is dropped.
      max_source_bytes, max_language_bytes: of text that are kept; None: all.
      terms: names whose share before and after is counted.
      tokenizer: folder of the tokenizer that counts tokens; None: words and marks are counted.
      minhash: of near-duplicates.
      seed: of which documents a cap keeps.
    """

    steps: tuple[str, ...] = STEPS
    text_key: str = "text"
    text_split: str = "file"
    source_key: str = "source"
    languages: tuple[str, ...] = ()
    language_threshold: float = 0.5
    language_model: str | None = None
    block_words: str | None = None
    block_urls: str | None = None
    bundled_urls: bool = False
    classifier: str | None = None
    classifier_label: str | None = None
    classifier_threshold: float = 0.5
    decontaminate: tuple[str, ...] = ()
    decontaminate_words: int = 12
    max_source_bytes: int | None = None
    max_language_bytes: int | None = None
    terms: tuple[str, ...] = ()
    tokenizer: str | None = None
    minhash: MinHash = MinHash()
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [step for step in self.steps if step not in STEPS]
        if unknown or not self.steps:
            raise UserError(
                f"--steps: no step called {unknown[0] if unknown else ''!r}; take some of "
                f"{','.join(STEPS)}"
            )
        if (self.classifier is None) != (self.classifier_label is None):
            raise UserError("--classifier and --classifier_label go together; give both or none")
        if (self.languages or self.has("quality")) and not self.has("language"):
            what = "--languages" if self.languages else "--steps: quality"
            raise UserError(f"{what} goes by the language of a document; add language to --steps")

    def has(self, step: str) -> bool:
        return step in self.steps

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def key(self, inputs: Sequence[tuple[str, int]]) -> str:
        """Of the work on files of these names and sizes: another recipe or input has another."""
        content = json.dumps([self.as_dict(), list(inputs)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def ordered(steps: Sequence[str]) -> tuple[str, ...]:
    """Steps in the order in which they make sense; unknown ones stay, to be refused."""
    return tuple(sorted(set(steps), key=lambda x: STEPS.index(x) if x in STEPS else len(STEPS)))
