"""Where documents start in the stream: a sorted array on disk, searched in bounded memory.

A small array is mapped and searched as it is. A large one (10^9 documents have 8 GB) is read a
page at a time: a page is guessed from where the position lies between the ends of what is left,
every fourth time it is the middle, so that O(log n) pages are enough whatever the lengths are. Two
or three are where lengths are much the same everywhere; a binary search would touch 20, and a map
would count gigabytes to each process.
"""

from __future__ import annotations

import itertools
import os
import weakref

import numpy as np

from lmjax.data import npy
from lmjax.errors import UserError

DTYPE = np.dtype("<u8")
_MAPPED_DOCUMENTS = 1 << 23  # 64 MiB
_PAGE = 1024  # documents of one read
_AGAIN = "copy the store again"


class DocumentIndex:
    """Finds the documents of windows. Threads may share it."""

    def __init__(self, file: str, num_documents: int, num_tokens: int) -> None:
        """`file` is the .npy of the starts; the last document ends at `num_tokens`.

        Raises:
          UserError: it is damaged.
        """
        self._file, self._num_documents, self._num_tokens = file, num_documents, num_tokens
        starts = npy.mapped(file, DTYPE, num_documents, _AGAIN)
        self._mapped = starts if num_documents <= _MAPPED_DOCUMENTS else None
        if self._mapped is None:
            self._offset, self._descriptor = starts.offset, os.open(file, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
            if hasattr(os, "posix_fadvise"):  # reading ahead would be in vain
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def find(
        self, start_B: np.ndarray, end_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Documents of the windows [start, end) of the stream; int64 all.

        Returns:
          (document of the first token [B], how many more start in the window [B], where those
          start, window by window [N]).
        """
        if self._mapped is None:
            windows = zip(start_B.tolist(), end_B.tolist(), strict=True)
            found = [self._find(start, end) for start, end in windows]
            inside = [starts for _, starts in found]
            first_B = np.array([first for first, _ in found], np.int64)
            num_B = np.array([len(starts) for starts in inside], np.int64)
            return first_B, num_B, np.concatenate([np.zeros(0, np.int64), *inside])
        starts = self._mapped
        first_B = np.searchsorted(starts, start_B.astype(DTYPE), side="right") - 1
        next_B = np.searchsorted(starts, end_B.astype(DTYPE), side="left")
        num_B = np.maximum(next_B - first_B - 1, 0)
        if (num_B > np.maximum(end_B - start_B, 0)).any():  # documents have a token at least
            raise self.out_of_order()
        nth = np.arange(num_B.sum()) - np.repeat(np.cumsum(num_B) - num_B, num_B)
        return first_B, num_B, starts[np.repeat(first_B, num_B) + 1 + nth].astype(np.int64)

    def starts(self, first: int, stop: int) -> np.ndarray:
        """Where documents first ... stop - 1 start, int64; fewer at the end."""
        if self._mapped is None:
            return self._read(first, stop)
        return self._mapped[first:stop].astype(np.int64)

    def _find(self, start: int, end: int) -> tuple[int, np.ndarray]:
        begin, page = self._page_of(min(start, self._num_tokens - 1))
        first = int(np.searchsorted(page, start, side="right")) - 1
        pages = [page[first + 1 :]]
        stop = begin + len(page)
        while page[-1] < end and stop < self._num_documents:
            if stop - begin > end - start + 2 * _PAGE:  # documents have a token at least
                raise self.out_of_order()
            page = self._read(stop, stop + _PAGE)
            pages.append(page)
            stop += len(page)
        inside = np.concatenate(pages) if len(pages) > 1 else pages[0]
        return begin + first, inside[: np.searchsorted(inside, end, side="left")]

    def _page_of(self, position: int) -> tuple[int, np.ndarray]:
        """(number of its first document, starts) of a page that holds the last start <= position"""
        low, low_start = 0, 0  # the document sought is in [low, high)
        high, high_start = self._num_documents, self._num_tokens
        for attempt in itertools.count():
            share = (position - low_start) / (high_start - low_start) if attempt % 4 < 3 else 0.5
            guess = low + int(share * (high - low)) - _PAGE // 2
            begin = max(low, min(guess, high - _PAGE))
            page = self._read(begin, min(begin + _PAGE, high))
            first, last = int(page[0]), int(page[-1])
            if position < first:
                if begin == low:
                    raise self.out_of_order()
                high, high_start = begin, first
            elif position >= last and begin + len(page) < high:
                low, low_start = begin + len(page) - 1, last
            else:
                return begin, page

    def out_of_order(self) -> UserError:
        """To raise where the file makes no sense."""
        return UserError(f"{self._file}: document starts are out of order; {_AGAIN}")

    def _read(self, begin: int, end: int) -> np.ndarray:
        size = (min(end, self._num_documents) - begin) * DTYPE.itemsize
        offset = self._offset + begin * DTYPE.itemsize
        data = os.pread(self._descriptor, size, offset)
        return np.frombuffer(data, DTYPE).astype(np.int64)
