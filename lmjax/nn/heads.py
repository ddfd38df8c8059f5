"""What stands on the trunk: the positions to predict, and their logits.

Shape suffixes: B rows, T length, P predicted positions, D hidden_size, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.model_config import ModelConfig
from lmjax.nn import linear
from lmjax.nn import norm as norms
from lmjax.nn.mlp import ACTIVATIONS

NEVER = -1e9  # a logit of what cannot be

# Parameters of heads: a model that gets another head keeps those that both have.
PARAMETERS = ("transform", "head_bias", "projection", "classifier")


def predicted(hidden_BTD: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Hidden states at the batch's predicted positions, hidden_BPD.

    With `predict_at` [B, P] those positions are gathered before the vocabulary projection, which
    then costs P/T of itself; the gather is along each row, so it stays local to a shard of rows.
    Without it every position is predicted and hidden_BTD is returned as it is.
    """
    if "predict_at" not in batch:
        return hidden_BTD
    return jnp.take_along_axis(hidden_BTD, batch["predict_at"][:, :, None], axis=1)


def mean(hidden_BTD: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
    """Mean hidden state of a row's tokens, special ones among them, hidden_B1D."""
    real_BT1 = (segment_ids_BT > 0)[:, :, None].astype(hidden_BTD.dtype)
    count_B11 = jnp.maximum(jnp.sum(real_BT1, axis=1, keepdims=True), 1)
    return jnp.sum(hidden_BTD * real_BT1, axis=1, keepdims=True) / count_B11


class Projected(NamedTuple):
    """What logits over the vocabulary are the product of; a pytree.

    Attributes:
      features_BPD: in the compute type.
      matrix_VD: float32, as it is trained.
      bias_V: float32; None: there is none.
    """

    features_BPD: jax.Array
    matrix_VD: jax.Array
    bias_V: jax.Array | None


def logits(projected: Projected) -> jax.Array:
    """Logits over the vocabulary, float32 [..., V]."""
    features, matrix_VD, bias_V = projected
    found = jnp.einsum(
        "...d,vd->...v",
        features,
        matrix_VD.astype(features.dtype),
        preferred_element_type=jnp.float32,
    )
    return found if bias_V is None else found + bias_V


class Projection(nn.Module):
    """The matrix of an untied vocabulary projection; a tied one is the table of tokens."""

    config: ModelConfig
    vocab_size: int

    @nn.compact
    def __call__(self) -> jax.Array:
        """The matrix, float32 [V, D]."""
        init = linear.kernel_init(self.config, self.config.hidden_size)
        kernel_DV = self.param(
            "kernel",
            nn.with_logical_partitioning(init, ("embed", "vocab")),
            (self.config.hidden_size, self.vocab_size),
        )
        return kernel_DV.T


class Classifier(nn.Module):
    """Numbers for each hidden state: of the classes, or of a span's two ends.

    With `config.has_pooler` a layer with tanh stands in front (Devlin et al. 2019, their
    `BertPooler`).
    """

    config: ModelConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden_BPD: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """hidden_BPD -> logits_BPC in float32."""
        config = self.config
        linear_of = functools.partial(
            linear.Linear,
            kernel_init=linear.kernel_init(config, config.hidden_size),
            use_bias=True,
        )
        if config.has_pooler:
            hidden_BPD = jnp.tanh(
                linear_of(
                    (config.hidden_size,), ("embed", "embed_out"), dtype=self.dtype, name="dense"
                )(hidden_BPD)
            )
        hidden_BPD = nn.Dropout(config.dropout)(hidden_BPD, deterministic=deterministic)
        classes = linear_of(
            (config.num_outputs,), ("embed", "labels"), dtype=jnp.float32, name="out"
        )
        return classes(hidden_BPD)


class Transform(nn.Module):
    """What BERT's masked-LM head has before the projection: dense, activation, norm.

    Devlin et al. 2019; the layer is in their released code (`get_masked_lm_output`).
    """

    config: ModelConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden_BPD: jax.Array) -> jax.Array:
        """hidden_BPD -> hidden_BPD in `dtype`."""
        config = self.config
        hidden_BPD = linear.Linear(
            features=(config.hidden_size,),
            axes=("embed", "embed_out"),
            kernel_init=linear.kernel_init(config, config.hidden_size),
            use_bias=config.use_bias,
            dtype=self.dtype,
            name="dense",
        )(hidden_BPD)
        hidden_BPD = ACTIVATIONS[config.activation](hidden_BPD)
        return norms.make(config, self.dtype, "norm")(hidden_BPD)
