"""From ids and positions to the residual stream.

Positions are data: they come from the batch, because they restart in every packed segment and go
on from the cache when decoding. An id or position outside its table gives NaN, not a wrong row.

Shape suffixes: B rows, T length, D hidden_size, V vocabulary, N max_positions.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.model_config import ModelConfig
from lmjax.nn import linear, residual
from lmjax.nn import norm as norms


class Embed(nn.Module):
    """Token table (Vaswani et al. 2017, 3.4), and those of positions and types where there are.

    Attributes:
      config, dtype: as elsewhere.
      vocab_size: rows of the token table; None: it is another one's, given at each call.
    """

    config: ModelConfig
    vocab_size: int | None
    dtype: jnp.dtype

    def setup(self):
        config = self.config
        init = linear.embedding_init(config)
        if self.vocab_size is not None:
            self.token = self.param(
                "token",
                nn.with_logical_partitioning(init, ("vocab", "embed")),
                (self.vocab_size, config.hidden_size),
            )
        if config.position == "learned":
            self.position = self.param(
                "position",
                nn.with_logical_partitioning(init, ("positions", "embed")),
                (config.position_offset + config.max_positions, config.hidden_size),
            )
        if config.token_types:
            self.token_type = self.param(
                "token_type",
                nn.with_logical_partitioning(init, ("token_types", "embed")),
                (config.token_types, config.hidden_size),
            )
        if config.embedding_norm:
            self.norm = norms.make(config, self.dtype)

    def __call__(
        self,
        inputs_BT: jax.Array,
        positions_BT: jax.Array,
        token_types_BT: jax.Array | None = None,
        token_VD: jax.Array | None = None,
    ) -> jax.Array:
        """int32 ids, positions and token types (None: all 0) -> x_BTD in `dtype`."""
        table_VD = self.token if token_VD is None else token_VD
        x_BTD = _rows(table_VD, "vocab", inputs_BT)
        if self.config.position == "learned":
            rows_BT = positions_BT + self.config.position_offset
            x_BTD = x_BTD + _rows(self.position, "positions", rows_BT)
        if self.config.token_types:
            types_BT = jnp.zeros_like(inputs_BT) if token_types_BT is None else token_types_BT
            x_BTD = x_BTD + _rows(self.token_type, "token_types", types_BT)
        x_BTD = x_BTD.astype(self.dtype)
        return self.norm(x_BTD) if self.config.embedding_norm else x_BTD


def _rows(table: jax.Array, name: str, ids_BT: jax.Array) -> jax.Array:
    """Rows of a table, x_BTD: split like activations, whatever the table is split like."""
    # Whole rows first: looked up in a table split along D, they would have to be put together
    # again on every device before they could be split by rows of the batch.
    table = nn.with_logical_constraint(table, (name, "act_embed"))
    x_BTD = jnp.take(table, ids_BT, axis=0)
    # And all positions first: for some of them, a table split along V would be gathered.
    x_BTD = nn.with_logical_constraint(x_BTD, ("act_batch", None, "act_embed"))
    return residual.constrained(x_BTD)
