"""Steps that change a text or tell its language: extraction, repair, masks.

Each is a judge: called with a document, it may change the text, and returns the name of the rule by
which the document is dropped, or None.
"""

from __future__ import annotations

import logging
import re
from functools import cached_property
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.extractors.base import ExtractorSandbox
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter

from lmjax.data import text as text_lib

UNKNOWN = "und"  # language that is not known (ISO 639-2)

_MARKUP = re.compile(r"<(?:!doctype|html|head|body|div|p|table|a|br|span)\b[^>]*>", re.IGNORECASE)
_LOOKED_AT = 20_000  # characters in which markup shows
# Long enough that a busy machine drops no more than an idle one.
_EXTRACTION_SECONDS = 60.0
_LANGUAGE_CHARACTERS = 4000

EMAIL, ADDRESS = "email@example.com", "192.0.2.1"  # kept for examples (RFC 2606, RFC 5737)


class Extract:
    """Text of HTML pages by trafilatura, in a process of its own that may hang or die."""

    name = "extract"

    def __init__(self) -> None:
        # Its own search for repeated lines remembers other pages, and so depends on their order.
        self._extractor = Trafilatura(deduplicate=False, timeout=_EXTRACTION_SECONDS)
        self._sandbox: ExtractorSandbox | None = None

    def __call__(self, document: Document) -> str | None:
        if not _MARKUP.search(document.text[:_LOOKED_AT]):
            return None
        try:
            found = self._process(document.text)
        except TimeoutError:
            return "extract_timeout"
        except Exception:  # of the parser, or its process died
            return "extract_failed"
        if not found or found.isspace():
            return "extract_nothing"
        document.text = found
        return None

    def _process(self, html: str) -> str | None:
        if self._sandbox is None:
            import trafilatura  # noqa: F401  so that the process need not, whose start is timed

            # Of pages without text, which the ledger tells of.
            logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
            logging.getLogger("readability").setLevel(logging.CRITICAL)

            self._sandbox = ExtractorSandbox(timeout=_EXTRACTION_SECONDS, warmup_text="")
        return self._sandbox.process_document(html, self._extractor.extract)

    def close(self) -> None:
        """Ends the process."""
        if self._sandbox is not None:
            self._sandbox.__exit__(None, None, None)
            self._sandbox = None


class Repair:
    """Mends wrong encodings, control characters and the like, by ftfy; then as all text here."""

    name = "repair"

    def __init__(self) -> None:
        self._formatter = FTFYFormatter()

    def __call__(self, document: Document) -> str | None:
        text = text_lib.normalise(self._formatter.format(document.text), _Uncounted())
        if text is None:
            return "repair_empty"
        document.text = text
        return None


class _Uncounted(dict):
    """Counts of which nobody wants to know."""

    def __missing__(self, key: str) -> int:
        return 0


class Language:
    """Names the language, offline: by py3langid's own model or by a fastText file of the user's."""

    name = "language"

    def __init__(self, languages: tuple[str, ...], threshold: float, model: str | None) -> None:
        self._wanted, self._threshold, self._file = frozenset(languages), threshold, model

    def __call__(self, document: Document) -> str | None:
        sample = document.text[:_LANGUAGE_CHARACTERS].replace("\n", " ")
        language, probability = self._identify(sample)
        sure = probability >= self._threshold
        document.metadata["language"] = language if sure else UNKNOWN
        if not self._wanted:
            return None
        if not sure:
            return "language_unsure"
        return None if language in self._wanted else "language_other"

    @cached_property
    def _identify(self) -> Any:
        if self._file is not None:
            model = load_fasttext(self._file)

            def identify(text: str) -> tuple[str, float]:
                labels, probabilities = model.predict(text)
                return labels[0].removeprefix("__label__").split("_")[0], float(probabilities[0])

            return identify
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        return lambda text: (lambda found: (found[0], float(found[1])))(identifier.classify(text))


def load_fasttext(file: str) -> Any:
    """A model of fastText's own format, which holds numbers and words and no code."""
    from fasttext.FastText import _FastText

    return _FastText(file)


class Mask:
    """Puts examples in the place of e-mail addresses and public IP addresses."""

    name = "pii"

    def __init__(self) -> None:
        self._formatter = PIIFormatter(email_replacement=EMAIL, ip_replacement=ADDRESS)
        self.masked = 0

    def __call__(self, document: Document) -> str | None:
        text = self._formatter.format(document.text)
        if text != document.text:
            marks = (EMAIL, ADDRESS)
            self.masked += sum(text.count(mark) - document.text.count(mark) for mark in marks)
            document.text = text
        return None
