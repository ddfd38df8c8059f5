"""Windows over the token stream: window i covers tokens [i * stride, i * stride + length).

Causal models take `length = stride + 1`, so that every token but the first is predicted once.
"""

from __future__ import annotations

import numpy as np

from lmjax.data.store import Store


class Windows:
    """Random access to the windows of a store, a batch at a time."""

    def __init__(self, store: Store, length: int, stride: int) -> None:
        """`length` tokens each, one every `stride` tokens; 0 < stride <= length."""
        if not 0 < stride <= length:
            raise ValueError(f"stride={stride} must be in 1..length={length}")
        self.store, self.length, self.stride = store, length, stride

    def __len__(self) -> int:
        """Number of windows; the last may be partly padding. 0 for a store without 2 tokens."""
        if self.store.num_tokens < 2:
            return 0
        overlap = self.length - self.stride
        return max(1, -(-(self.store.num_tokens - overlap) // self.stride))

    def read(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (int32 [B, length]) and their documents (int64 [B, length]) of some windows.

        Beyond the end of the stream tokens are pad 0 and documents -1.
        """
        start_B = np.asarray(index_B, np.int64) * self.stride
        tokens_BL = self.store.read(start_B, self.length)
        return tokens_BL, self.store.documents_at(start_B, self.length)
