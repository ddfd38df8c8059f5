"""How answers are judged, with intervals: accuracy, F1, exact match, ROUGE-L, BLEU, chrF.

Values are those of the libraries that the field counts with: scikit-learn, seqeval, rouge-score and
sacrebleu. For the intervals each measure is also a function of numbers that add up over the items
(right or wrong; entities found, given and wanted; n-grams that match), so that a bootstrap draws
items, adds up their numbers and needs no second look at a text.

Exact match and F1 of answers are those of SQuAD (Rajpurkar et al. 2016, section 6.1): over words
in lower case without punctuation and English articles.

Dimension key: N items, S numbers of each, R resamples.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmjax.errors import UserError

NUM_RESAMPLES = 1000
_LOW, _HIGH = 2.5, 97.5  # percentiles: an interval of 95 %


@dataclass(frozen=True, eq=False)
class Measure:
    """One number about many answers.

    Attributes:
      name: as in metrics.jsonl.
      value: over all items, between 0 and 1, or 0 and 100 of BLEU and chrF.
      numbers_NS: what each item adds, float64.
      of_sums: sums [..., S] -> the measure [...].
    """

    name: str
    value: float
    numbers_NS: np.ndarray
    of_sums: Callable[[np.ndarray], np.ndarray]

    def resampled(self, counts_RN: np.ndarray) -> np.ndarray:
        """The measure of resamples that have each item so many times, float64 [R]."""
        return np.asarray(self.of_sums(counts_RN @ self.numbers_NS))

    def interval(self, counts_RN: np.ndarray | None = None) -> tuple[float, float]:
        """Ends of the 95 % interval of a bootstrap over items; None: of `draws`."""
        counts_RN = draws(len(self.numbers_NS)) if counts_RN is None else counts_RN
        return percentiles(self.resampled(counts_RN))


def percentiles(value_R: np.ndarray) -> tuple[float, float]:
    """Ends of the 95 % interval of resampled values."""
    low, high = np.percentile(value_R, (_LOW, _HIGH))
    return float(low), float(high)


def draws(num_items: int, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each item is in each of the resamples, float64 [R, N]; the same at every call."""
    generator = np.random.default_rng(seed)
    share_N = np.full(num_items, 1 / max(num_items, 1))
    return generator.multinomial(num_items, share_N, size=num_resamples).astype(np.float64)


def row(measures: Sequence[Measure]) -> dict[str, float]:
    """Fields of a row of metrics: each measure, and its interval as NAME_low and NAME_high."""
    found: dict[str, float] = {}
    counts_RN = draws(len(measures[0].numbers_NS))
    for measure in measures:
        low, high = measure.interval(counts_RN)
        found |= {measure.name: measure.value, f"{measure.name}_low": low}
        found |= {f"{measure.name}_high": high}
    return found


_LIBRARIES = {
    "sklearn": "scikit-learn",
    "seqeval": "seqeval",
    "sacrebleu": "sacrebleu",
    "rouge_score": "rouge-score",
}


def require() -> None:
    """Raises UserError unless the libraries of the extra [eval] are installed."""
    for name in _LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise _missing(name)


def _missing(name: str) -> UserError:
    return UserError(
        f"{_LIBRARIES[name]}, which judges the answers, is not installed; pip install 'lmjax[eval]'"
    )


def library(name: str) -> Any:
    """A module of the extra [eval].

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name.split(".")[0]) from error


def mean(name: str, values: Sequence[float]) -> Measure:
    """The mean of a number that each item has."""
    value_N = np.asarray(values, np.float64)
    numbers_NS = np.stack([value_N, np.ones_like(value_N)], axis=1)
    return Measure(name, float(value_N.mean()), numbers_NS, _share)


def _share(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(sums[..., 1], 1)


def classes(predictions: Sequence[str], references: Sequence[str]) -> list[Measure]:
    """Accuracy, and the mean of the classes' F1 (scikit-learn's macro average)."""
    metrics = library("sklearn.metrics")
    names = sorted({*predictions, *references})
    said_N, right_N = (np.searchsorted(names, list(x)) for x in (predictions, references))
    cells_NS = np.zeros((len(said_N), len(names) ** 2))
    cells_NS[np.arange(len(said_N)), right_N * len(names) + said_N] = 1

    def macro_f1(sums: np.ndarray) -> np.ndarray:
        table = sums.reshape(*sums.shape[:-1], len(names), len(names))
        right = np.diagonal(table, axis1=-2, axis2=-1)
        either = table.sum(axis=-1) + table.sum(axis=-2)
        f1 = 2 * right / np.maximum(either, 1)
        return f1.sum(axis=-1) / np.maximum((either > 0).sum(axis=-1), 1)

    f1 = metrics.f1_score(references, predictions, average="macro", zero_division=0)
    return [
        mean("accuracy", said_N == right_N),
        Measure("f1", float(f1), cells_NS, macro_f1),
    ]


def entities(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> list[Measure]:
    """F1 of whole entities over all texts, as seqeval finds them in IOB tags, and tag accuracy."""
    labeling = library("seqeval.metrics.sequence_labeling")
    numbers, tags = [], []
    for prediction, reference in zip(predictions, references, strict=True):
        said, right = (set(labeling.get_entities(list(x))) for x in (prediction, reference))
        numbers.append((len(said & right), len(said), len(right)))
        same = sum(p == r for p, r in zip(prediction, reference, strict=True))
        tags.append((same, len(reference)))
    pair = [list(map(list, x)) for x in (references, predictions)]
    with warnings.catch_warnings():  # of a model that finds nothing, whose F1 is 0
        warnings.simplefilter("ignore")
        f1 = labeling.f1_score(*pair, average="micro", zero_division=0)
    return [
        Measure("accuracy", labeling.accuracy_score(*pair), np.array(tags, np.float64), _share),
        Measure("f1", float(f1), np.array(numbers, np.float64), _harmonic),
    ]


def _harmonic(sums: np.ndarray) -> np.ndarray:
    return 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


def words_of(text: str) -> list[str]:
    """What of an answer counts: words in lower case, without punctuation and English articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def answers(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Measure]:
    """Exact match and F1 of words against the best of each item's right answers."""
    exact, f1 = [], []
    for prediction, right in zip(predictions, references, strict=True):
        said = words_of(prediction)
        wanted = [words_of(text) for text in right]
        exact.append(max(said == words for words in wanted))
        f1.append(max(_overlap(said, words) for words in wanted))
    return [mean("exact_match", exact), mean("f1", f1)]


def _overlap(said: list[str], wanted: list[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    return 2 * sum((Counter(said) & Counter(wanted)).values()) / (len(said) + len(wanted))


def texts(predictions: Sequence[str], references: Sequence[str]) -> list[Measure]:
    """Exact match, F1 of words, ROUGE-L, BLEU and chrF of texts with one right answer each."""
    scorer = library("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    rouge = [
        scorer.score(reference, prediction)["rougeL"].fmeasure
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    sacrebleu = library("sacrebleu.metrics")
    return [
        *answers(predictions, [[reference] for reference in references]),
        mean("rougeL", rouge),
        _corpus("bleu", sacrebleu.BLEU(), predictions, references),
        _corpus("chrf", sacrebleu.CHRF(), predictions, references),
    ]


def _corpus(
    name: str, metric: Any, predictions: Sequence[str], references: Sequence[str]
) -> Measure:
    """A measure of sacrebleu: of the sums of what it counts in each text."""
    # What its own bootstrap does; there is no public name for the two halves of `corpus_score`.
    counted = metric._extract_corpus_statistics(list(predictions), [list(references)])

    def of_sums(sums: np.ndarray) -> np.ndarray:
        flat = sums.reshape(-1, sums.shape[-1]).round().astype(np.int64)
        scores = [metric._compute_score_from_stats(numbers.tolist()).score for numbers in flat]
        return np.array(scores).reshape(sums.shape[:-1])

    value = metric.corpus_score(list(predictions), [list(references)]).score
    return Measure(name, value, np.array(counted, np.float64), of_sums)
