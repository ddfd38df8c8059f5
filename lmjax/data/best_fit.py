"""Best-fit decreasing bin packing, all items of one size at a time.

Items are taken from the largest to the smallest; each goes to the fullest bin that it fits, or to a
new one (Johnson et al. 1974, "Worst-case performance bounds for simple one-dimensional packing
algorithms": at most 11/9 of the fewest bins). A bin that is the fullest for an item stays so for
the next one of that size, as long as that fits: so equal items are placed by whole bins, and the
work goes with the number of different sizes rather than of items.
"""

from __future__ import annotations

import numpy as np


def best_fit(size_N: np.ndarray, capacity: int) -> np.ndarray:
    """The bin of each item.

    Args:
      size_N: integers in [1, capacity].
      capacity: of every bin.

    Returns:
      int64 [N], bins numbered from 0 in the order in which they were opened.

    Raises:
      ValueError: an item is too large, or has no size.
    """
    size_N = np.asarray(size_N, np.int64)
    if len(size_N) and not (size_N.min() >= 1 and size_N.max() <= capacity):
        raise ValueError(f"sizes from {size_N.min()} to {size_N.max()} and bins of {capacity}")
    bin_N = np.empty(len(size_N), np.int64)
    order_N = np.argsort(-size_N, kind="stable")
    groups = np.split(order_N, np.flatnonzero(np.diff(size_N[order_N])) + 1)
    room: dict[int, list[np.ndarray]] = {}  # places left -> bins that have them
    rooms, num_bins = 0, 0  # bit r of `rooms`: there is a bin with r places left
    for items in groups if len(size_N) else []:
        size = int(size_N[items[0]])
        while len(items):
            if fitting := rooms >> size:
                left = size + (fitting & -fitting).bit_length() - 1
                bins = room[left].pop()
                if not room[left]:
                    rooms &= ~(1 << left)
            else:
                left = capacity
                bins = num_bins + np.arange(-(-len(items) // (left // size)))
                num_bins += len(bins)
            each = left // size
            placed, whole = min(len(items), each * len(bins)), len(items) // each
            bin_N[items[:placed]] = np.repeat(bins, each)[:placed]
            remaining = (
                (bins[:whole], left - each * size),
                (bins[whole : whole + 1], left - (len(items) - whole * each) * size),
                (bins[whole + 1 :], left),
            )
            for some, places in remaining:
                if len(some) and places:
                    room.setdefault(places, []).append(some)
                    rooms |= 1 << places
            items = items[placed:]
    return bin_N
