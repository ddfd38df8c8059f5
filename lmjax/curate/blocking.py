"""Block lists of words and URLs, a user's classifier, and contamination with held-out text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import regex
import tldextract
from datatrove.data import Document
from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.filters import URLFilter
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.utils.text import ngrams, simplify_text

from lmjax.curate.text_steps import load_fasttext
from lmjax.curate.words import Words
from lmjax.data import files as files_lib
from lmjax.data import text as text_lib
from lmjax.errors import UserError


def read_list(file: str) -> list[str]:
    """Lines of a file, without blank ones and comments (`#`).

    Raises:
      UserError: it cannot be read, or says nothing.
    """
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); give a text file, one a line") from None
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise UserError(f"{file}: names nothing; give one a line, or leave the flag out")
    return found


class Phrases:
    """Finds any of some words or phrases, whole and in any case."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._phrases = list(phrases)

    @property
    def any(self) -> bool:
        """Whether there are some to look for."""
        return bool(self._phrases)

    def found(self, text: str) -> list[str]:
        """Every occurrence, in lower case."""
        return [match.group(1).casefold() for match in self._pattern.finditer(text)]

    def __contains__(self, text: str) -> bool:
        return self._pattern.search(text) is not None

    @cached_property
    def _pattern(self) -> Any:
        # The longest first; by named lists, the engine of `regex` looks them up in a set.
        return regex.compile(
            r"(?<![\w])(\L<phrases>)(?![\w])",
            regex.IGNORECASE,
            phrases=sorted(self._phrases, key=len, reverse=True),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"_phrases": self._phrases}


class BlockWords:
    """Drops what has any word or phrase of a list."""

    name = "block_words"

    def __init__(self, words: Sequence[str]) -> None:
        self._phrases = Phrases(words)

    def __call__(self, document: Document) -> str | None:
        return "block_words" if document.text in self._phrases else None


class BlockUrls:
    """Drops what comes from a listed domain or URL, or, by the engine's lists, sounds like it."""

    name = "block_urls"

    def __init__(self, urls: Sequence[str], bundled: bool) -> None:
        self._urls, self._bundled = tuple(urls), bundled

    def __call__(self, document: Document) -> str | None:
        url = document.metadata["fields"].get("url")
        if not isinstance(url, str) or not url:
            return None
        document.metadata["url"] = url
        kept, why = get_filter_result(self._filter.filter(document))
        return None if kept else f"block_url_{why}"

    @cached_property
    def _filter(self) -> URLFilter:
        made = URLFilter(
            extra_domains=self._urls, extra_urls=self._urls, use_integrated_lists=self._bundled
        )
        made.tldextractor = tldextract.TLDExtract(suffix_list_urls=())  # its own asks the network
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {"_urls": self._urls, "_bundled": self._bundled}


class Classifier:
    """Drops what a fastText classifier gives a label with at least some probability."""

    name = "classifier"

    def __init__(self, file: str, label: str, threshold: float) -> None:
        self._file, self._label, self._threshold = file, f"__label__{label}", threshold

    def __call__(self, document: Document) -> str | None:
        labels, probabilities = self._model.predict(document.text.replace("\n", " "), k=-1)
        of = dict(zip(labels, probabilities, strict=True))
        return "classifier" if of.get(self._label, 0.0) >= self._threshold else None

    @cached_property
    def _model(self) -> Any:
        return load_fasttext(self._file)

    def check(self) -> None:
        """Raises UserError unless the file is a model that knows the label."""
        try:
            labels = self._model.labels
        except (ValueError, OSError) as error:
            raise UserError(
                f"{self._file}: no fastText model ({error}); give a .bin or .ftz file"
            ) from None
        if self._label not in labels:
            known = ", ".join(label.removeprefix("__label__") for label in labels[:20])
            asked = self._label.removeprefix("__label__")
            raise UserError(f"{self._file}: knows no label {asked!r}; it has {known}")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_model"}


class Decontaminate:
    """Drops what shares so many words in a row with held-out text (Brown et al. 2020, app. C)."""

    name = "decontaminate"

    def __init__(self, files: Sequence[str], num_words: int) -> None:
        self._files, self._config = tuple(files), NGramsDecontConfig(n_grams=num_words)

    def __call__(self, document: Document) -> str | None:
        kept, _ = get_filter_result(self._filter.filter(document))
        return None if kept else "contaminated"

    @cached_property
    def _filter(self) -> NGramsDecontFilter:
        words = Words()
        made = NGramsDecontFilter(".", config=self._config, language=words)
        made._index_hashes = {
            made.hash_func(" ".join(found)): file
            for file in self._files
            for text in _texts(file)
            for found in ngrams(
                words.word_tokenize(simplify_text(text, self._config.norm_config)),
                self._config.n_grams,
            )
        }
        return made

    def check(self) -> None:
        """Raises UserError unless the files are there and have enough words in a row."""
        if not self._filter._index_hashes:
            raise UserError(
                f"--decontaminate: no text of {self._config.n_grams} words in "
                f"{', '.join(self._files)}; give held-out texts, or lower --decontaminate_words"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"_files": self._files, "_config": self._config}


def _texts(file: str) -> Iterator[str]:
    """All texts in a file of lines of JSON (every field's), or the whole of another."""
    with text_lib.file_errors(file), files_lib.open_bytes(file) as (content, _):
        if not files_lib.suffix(file).startswith(".jsonl"):
            yield content.read().decode(errors="replace")
            return
        for _, line in text_lib.lines(content):
            if line and not line.isspace():
                try:
                    yield from _strings(json.loads(line.decode(), strict=False))
                except (ValueError, RecursionError):
                    continue


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
