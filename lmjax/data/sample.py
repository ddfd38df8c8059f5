"""A sample of the text of many files, to train a tokenizer on.

Each file gives a share in proportion to its size on disk. Where a file can be entered anywhere
(Parquet, and lines that are not compressed), a share much smaller than the file is taken from
`_SPANS` places spread over it; others are read from their start. The same files give the same
sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq

from lmjax import paths
from lmjax.data import files as files_lib
from lmjax.data import text as text_lib

_SPANS = 16
_ENTERED_ANYWHERE = (*files_lib.LINES, ".parquet")


def sample_texts(
    files: Sequence[str],
    *,
    text_key: str,
    text_split: str,
    num_bytes: int,
    counts: Counter[str] | None = None,
) -> Iterator[str]:
    """Yields normalised texts of about `num_bytes` of UTF-8 in all, or all there are if fewer.

    `counts` gets what was skipped, as in `read_documents`.

    Raises:
      UserError: as `read_documents`.
    """
    counts = Counter() if counts is None else counts
    sizes = [paths.size(file) for file in files]
    for file, size in zip(files, sizes, strict=True):
        share = max(1, num_bytes * size // max(1, sum(sizes)))
        if size <= 2 * share or files_lib.suffix(file) not in _ENTERED_ANYWHERE:
            yield from _whole_file(file, text_key, text_split, share, counts)
        else:
            for span in range(_SPANS):
                yield from _span(file, text_key, size, span, -(-share // _SPANS), counts)


def _limit(texts: Iterator[str], num_bytes: int) -> Iterator[str]:
    left = num_bytes
    for text in texts:
        yield text[:left]
        left -= len(text[:left].encode())
        if left <= 0:
            return


def _whole_file(
    file: str, text_key: str, text_split: str, num_bytes: int, counts: Counter[str]
) -> Iterator[str]:
    documents = text_lib.read_documents(
        [file], text_key=text_key, text_split=text_split, counts=counts
    )
    yield from _limit((d.text for d in documents), num_bytes)


def _span(
    file: str, text_key: str, size: int, span: int, num_bytes: int, counts: Counter[str]
) -> Iterator[str]:
    """Text from one place of a file on; the record that the place falls into is left out."""
    with text_lib.file_errors(file), files_lib.open_bytes(file) as (content, _):
        skip = 0
        if files_lib.suffix(file) == ".parquet":
            skip = pq.ParquetFile(content).metadata.num_rows * span // _SPANS
        else:
            content.seek(size * span // _SPANS)
        records = text_lib.read_records(file, content, text_key, "line", counts, skip)
        texts = (text_lib.normalise(data, counts) for _, data in records)
        yield from _limit((text for text in texts if text is not None), num_bytes)
