"""Which documents share a row: worked out once, kept beside the store, read at random.

A row of a plan holds whole documents. One that is too long for any row is cut: all its parts but
the last fill a row each, the last one is placed like a document. "document" gives every part a row
to itself; "pack" fills rows by best fit, over a million documents at a time, which keeps the memory
flat and costs no fill. What a text takes up is the objective's to say (`Objective.places`).

A plan is a folder:

  start.bin    uint64 [parts], where each part starts in the stream, row by row
  length.bin   uint32 [parts], its tokens
  first.bin    uint64 [rows + 1], the first part of each row
  plan.json    counts, sizes and SHA-256; written last

Dimension key: N documents, K parts, R rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lmjax import confine
from lmjax.batch import Objective
from lmjax.data import files as files_lib
from lmjax.data import progress
from lmjax.data.best_fit import best_fit
from lmjax.data.store import Store, file_entry
from lmjax.errors import UserError

Packing = Literal["document", "pack"]

_FORMAT = 1
_FOLDER = "plans"
_META = "plan.json"
_DTYPES = {"start": np.dtype("<u8"), "length": np.dtype("<u4"), "first": np.dtype("<u8")}
_DOCUMENTS_AT_ONCE = 1 << 20
_MAPPED_BYTES = 1 << 26
_PARTS_AT_ONCE = 1 << 22  # of long documents, which bounds the memory


@dataclass(frozen=True)
class Sizes:
    """What a plan has to know of an objective.

    Attributes:
      longest: tokens of the longest text that fits a row.
      closes_rows: documents come without their end token.
      cost: places that a text of 0 ... `longest` tokens takes, of `capacity`; the side of the row
        that it fills most.
      capacity: places of a row.
      read: ids that the model reads of such a text; `row`: and of a full row.
    """

    longest: int
    closes_rows: bool
    cost: tuple[int, ...]
    capacity: int
    read: tuple[int, ...]
    row: int


def sizes(objective: Objective) -> Sizes:
    """The sizes of texts in rows of `objective`."""
    spec = objective.spec(1)
    longest = objective.window_stride
    places = objective.places(np.arange(longest + 1))
    capacity = max(spec[name][0][1] for name in places)
    shares = [-(-p * capacity // spec[name][0][1]) for name, p in places.items()]
    cost = np.minimum(np.max(shares, axis=0), capacity)  # the longest fills a row by definition
    sides = [name for name in places if name.endswith("inputs")]
    read = sum(places[name] for name in sides)
    row = sum(spec[name][0][1] for name in sides)
    return Sizes(
        longest,
        objective.closes_rows,
        tuple(cost.tolist()),
        capacity,
        tuple(read.tolist()),
        row,
    )


class Plan:
    """A finished plan, opened for reading; pickles by its path."""

    def __init__(self, path: str) -> None:
        """Raises UserError if it is damaged; files above 64 MiB are not read to find that out."""
        self.path = path
        with open(os.path.join(path, _META), "rb") as stream:
            content = stream.read()
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            meta = json.loads(content)
            self.num_rows, self._num_parts = (int(meta[k]) for k in ("num_rows", "num_parts"))
            self.fill = float(meta["fill"])
            hashes = {name: meta["files"][name]["sha256"] for name in _DTYPES}
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            raise self._damaged(_META) from None
        lengths = {"start": self._num_parts, "length": self._num_parts, "first": self.num_rows + 1}
        files = {name: os.path.join(path, _column_file(name)) for name in lengths}
        for name, file in files.items():
            size = lengths[name] * _DTYPES[name].itemsize
            if not os.path.isfile(file) or os.path.getsize(file) != size:
                raise self._damaged(_column_file(name))
            if size <= _MAPPED_BYTES and files_lib.sha256(file) != hashes[name]:
                raise self._damaged(_column_file(name))
        self._columns = {name: _Column(file, _DTYPES[name]) for name, file in files.items()}

    def _damaged(self, file: str) -> UserError:
        return UserError(
            f"{os.path.join(self.path, file)}: not as it was written; delete {self.path} to plan "
            "anew"
        )

    def __reduce__(self) -> tuple:
        return Plan, (self.path,)

    def parts(self, row_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The parts of documents in some rows, in order.

        Args:
          row_B: integers; a row behind the last one has none.

        Returns:
          int64 [D] each: which of the B rows a part is in, where it starts in the stream, its
          tokens.

        Raises:
          UserError: the plan is damaged.
        """
        row_B = np.asarray(row_B, np.int64)
        real_B = row_B < self.num_rows
        begin_B = np.where(real_B, row_B, 0)
        bounds_B2 = self._columns["first"].slices(begin_B, np.full_like(row_B, 2)).reshape(-1, 2)
        first_B, num_B = bounds_B2[:, 0], np.where(real_B, np.diff(bounds_B2)[:, 0], 0)
        if (first_B < 0).any() or (num_B < 0).any() or (first_B + num_B > self._num_parts).any():
            raise self._damaged(_column_file("first"))
        slot_D = np.repeat(np.arange(len(row_B)), num_B)
        return (
            slot_D,
            self._columns["start"].slices(first_B, num_B),
            self._columns["length"].slices(first_B, num_B),
        )


def _column_file(name: str) -> str:
    return f"{name}.bin"


class _Column:
    """A file of integers: a small one is mapped, a large one read where it is asked for.

    A map of gigabytes would come to be counted to each process (docs/decisions.md).
    """

    def __init__(self, file: str, dtype: np.dtype) -> None:
        self._dtype, self._mapped = dtype, None
        if os.path.getsize(file) <= _MAPPED_BYTES:
            self._mapped = np.memmap(file, dtype, mode="r")
        else:
            self._descriptor = os.open(file, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)

    def slices(self, begin_B: np.ndarray, num_B: np.ndarray) -> np.ndarray:
        """Items begin ... begin + num - 1 of each, one behind the other, int64."""
        if self._mapped is not None:
            index = np.arange(num_B.sum()) - np.repeat(np.cumsum(num_B) - num_B - begin_B, num_B)
            return self._mapped[index].astype(np.int64)
        size = self._dtype.itemsize
        data = [
            os.pread(self._descriptor, num * size, begin * size)
            for begin, num in zip(begin_B.tolist(), num_B.tolist(), strict=True)
        ]
        return np.frombuffer(b"".join(data), self._dtype).astype(np.int64)


def ensure(
    store: Store,
    packing: Packing,
    needs: Sizes,
    cache_dir: str,
    log: Callable[[str], None] = lambda line: None,
) -> Plan:
    """The plan of a store's split, made now or before.

    Args:
      store: the split.
      packing: as in the module's docstring.
      needs: from `sizes`.
      cache_dir: where the plan goes if the store's folder cannot be written.
      log: gets lines worth telling the user.
    """
    what = [_FORMAT, store.manifest_sha256, store.split, packing, asdict(needs)]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    root = store.path if os.access(store.path, os.W_OK) else os.path.expanduser(cache_dir)
    folder = os.path.join(root, _FOLDER, key)
    if root == store.path:  # which others may have made
        confine.inside(root, _FOLDER)
        confine.check_links(os.path.join(root, _FOLDER))
    if not os.path.exists(os.path.join(folder, _META)):
        with files_lib.writing(folder):
            os.makedirs(folder, exist_ok=True)
        with files_lib.locked(folder, f"plans the rows of {store.path}", log):
            if not os.path.exists(os.path.join(folder, _META)):
                _make(store, packing, needs, folder, log)
    return Plan(folder)


def _make(
    store: Store, packing: Packing, needs: Sizes, folder: str, log: Callable[[str], None]
) -> None:
    num_parts = num_rows = num_read = 0
    log(f"planning the rows of {store.path}, {store.split} (once; kept in {folder})")
    with files_lib.writing(folder):
        out = {name: open(os.path.join(folder, _column_file(name)), "wb") for name in _DTYPES}  # noqa: SIM115
        try:
            with progress.shown("planning rows", log) as show:
                for end, (start_K, length_K, row_K) in _planned(store, packing, needs):
                    first_K = np.flatnonzero(np.diff(row_K, prepend=-1)) + num_parts
                    columns = {"start": start_K, "length": length_K, "first": first_K}
                    for name, column in columns.items():
                        out[name].write(column.astype(_DTYPES[name]).tobytes())
                    num_parts, num_rows = num_parts + len(start_K), num_rows + len(first_K)
                    num_read += int(np.asarray(needs.read)[length_K].sum())
                    show(end * store.token_bytes, store.num_tokens * store.token_bytes)
            out["first"].write(np.array([num_parts], _DTYPES["first"]).tobytes())
        finally:
            for stream in out.values():
                stream.close()
    fill = num_read / max(num_rows * needs.row, 1)
    meta: dict[str, Any] = {
        "format": _FORMAT,
        "packing": packing,
        "num_rows": num_rows,
        "num_parts": num_parts,
        "fill": fill,
        "files": {name: file_entry(folder, _column_file(name)) for name in _DTYPES},
    }
    content = json.dumps(meta, indent=2) + "\n"
    files_lib.write_whole(os.path.join(folder, _META), content.encode())
    log(f"{num_parts:,} documents and parts in {num_rows:,} rows, {fill:.1%} full")


def _planned(
    store: Store, packing: Packing, needs: Sizes
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Yields (tokens done, (start, length, row) of some parts, row by row from 0)."""
    cost_M = np.asarray(needs.cost)
    end = 0
    while (begin := end) < store.num_documents:
        bound_N = store.bounds(begin, min(begin + _DOCUMENTS_AT_ONCE, store.num_documents))
        most = bound_N[0] + _PARTS_AT_ONCE * needs.longest
        bound_N = bound_N[: max(np.searchsorted(bound_N, most, side="right"), 2)]
        end = begin + len(bound_N) - 1
        text_N = np.diff(bound_N) - needs.closes_rows
        num_N = -(-text_N // needs.longest)
        document_K = np.repeat(np.arange(len(text_N)), num_N)
        nth_K = np.arange(len(document_K)) - np.repeat(np.cumsum(num_N) - num_N, num_N)
        offset_K = nth_K * needs.longest
        length_K = np.minimum(text_N[document_K] - offset_K, needs.longest)
        start_K = bound_N[document_K] + offset_K
        row_K = np.arange(len(start_K))
        if packing == "pack":
            row_K = best_fit(cost_M[length_K], needs.capacity)
        order_K = np.argsort(row_K, kind="stable")
        yield int(bound_N[-1]), (start_K[order_K], length_K[order_K], row_K[order_K])
