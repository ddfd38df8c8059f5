"""What needs no network: the least that a fine-tuned model has to beat.

Each baseline sees the labelled examples that the model was trained on, nothing else, and answers
the held-out ones.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmjax.objectives.measures import library, words_of

Record = Mapping[str, Any]
Baseline = Callable[[Sequence[Record], Sequence[Record]], list[Any]]

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def tfidf(train: Sequence[Record], test: Sequence[Record]) -> list[str]:
    """Logistic regression on TF-IDF of words and pairs of words, as scikit-learn has them."""
    vectorizer = library("sklearn.feature_extraction.text").TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True
    )
    regression = library("sklearn.linear_model").LogisticRegression(max_iter=1000)
    text = lambda record: f"{record['text']}\n{record.get('text_pair') or ''}"
    regression.fit(
        vectorizer.fit_transform(map(text, train)), [str(record["label"]) for record in train]
    )
    return regression.predict(vectorizer.transform(map(text, test))).tolist()


def most_frequent_tag(train: Sequence[Record], test: Sequence[Record]) -> list[list[str]]:
    """The tag that a word had most often; of a word never seen, the most frequent one of all."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in train:
        for word, tag in zip(record["tokens"], record["tags"], strict=True):
            counts[word][tag] += 1
    of_all = sum(counts.values(), Counter()).most_common(1)[0][0]
    best = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    return [[best.get(word, of_all) for word in record["tokens"]] for record in test]


def first_sentence(train: Sequence[Record], test: Sequence[Record]) -> list[str]:
    """The first sentence of the source."""
    return [_SENTENCE.split(record["source"].strip())[0] for record in test]


def copy(train: Sequence[Record], test: Sequence[Record]) -> list[str]:
    """The source itself."""
    return [record["source"] for record in test]


def closest_sentence(train: Sequence[Record], test: Sequence[Record]) -> list[str]:
    """The sentence of the context that shares most words with the question."""

    def closest(record: Record) -> str:
        asked = set(words_of(record["question"]))
        sentences = _SENTENCE.split(record["context"])
        return max(sentences, key=lambda sentence: len(asked & set(words_of(sentence))))

    return [closest(record) for record in test]


# Objective -> its baselines by what they are called.
BASELINES: dict[str, dict[str, Baseline]] = {
    "sequence_classification": {"TF-IDF, logistic regression": tfidf},
    "token_classification": {"most frequent tag of the word": most_frequent_tag},
    "span_extraction": {"sentence closest to the question": closest_sentence},
    "seq2seq": {"first sentence": first_sentence, "the source itself": copy},
    "completion": {},
}
