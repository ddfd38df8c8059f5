"""An encoder of text for tests: words and marks are ids by their place in a list of them."""

import re

import numpy as np

from lmjax.batch import Ids

FIRST = 10  # ids below are special ones


class Words:
    """A tokenizer whose tokens are words with the space in front of them, and marks."""

    def __init__(self):
        self.known = []

    def clean(self, text):
        return text.replace("\r\n", "\n")

    def spans(self, text):
        matches = list(re.finditer(r" ?\w+| ?[^\w\s]|\s", text))
        for match in matches:
            if match.group() not in self.known:
                self.known.append(match.group())
        ids = [FIRST + self.known.index(match.group()) for match in matches]
        return np.array(ids, np.int32), np.array([m.span() for m in matches]).reshape(-1, 2)

    def ids(self, text):
        return self.spans(self.clean(text))[0]

    def decode(self, ids):
        return "".join(self.known[token - FIRST] for token in ids)


IDS = Ids(num_ids=300, num_rows=384)
BOS, EOS = IDS.bos, IDS.eos
