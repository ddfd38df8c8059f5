"""The shards of a store, read at random with a bounded number of them open.

Measured with 8,192 records to a shard: an open reader holds 77 KiB (its index) and a file
descriptor; opening takes 0.3-0.5 ms, reading a record 15-25 us. The cost of both grows with the
number of records in the shard, see docs/decisions.md.
"""

from __future__ import annotations

import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence

from array_record.python.array_record_module import ArrayRecordReader

_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # what suits random access
_MIN_BATCHED_READ = 128  # a batched read wakes a pool of threads, which costs about 0.7 ms
_MAX_OPEN = 1024  # 79 MB of indexes; 2^34 tokens in shards of 2^24


def max_open() -> int:
    """How many shards one store keeps open: a quarter of what the process may at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_OPEN if soft == resource.RLIM_INFINITY else max(1, min(_MAX_OPEN, soft // 4))


class ShardReaders:
    """Reads records of shards; keeps those open that were read last. Threads may share it."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, ArrayRecordReader] = OrderedDict()
        self._lock = threading.Lock()
        self._max_open = max_open()

    def read(self, file: str, indices: Sequence[int]) -> list[bytes]:
        """Records of a shard.

        Raises:
          RuntimeError, ValueError, IndexError, OSError: what ArrayRecord has against the file.
        """
        reader = self._reader(file)
        if len(indices) < _MIN_BATCHED_READ:
            return [record for index in indices for record in reader.read([index])]
        return reader.read(indices)

    def _reader(self, file: str) -> ArrayRecordReader:
        with self._lock:
            if file in self._open:
                self._open.move_to_end(file)
                return self._open[file]
        reader = ArrayRecordReader(file, _OPTIONS)  # not under the lock: it takes its time
        with self._lock:
            self._open[file] = reader
            while len(self._open) > self._max_open:
                self._open.popitem(last=False)  # closed when the last thread is done with it
        return reader
