"""The model: embedding, stack, final norm; then a head.

`trunk` and `head` are apart so that a loss may see only the predicted positions, in chunks if it
likes, and that scoring, embedding and generation need no other model.

Shape suffixes: B rows, T length, P predicted positions, S cache slots, D hidden_size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.model_config import ModelConfig
from lmjax.nn import heads, residual, stack
from lmjax.nn import norm as norms
from lmjax.nn.attention import Context, Memory, Tokens
from lmjax.nn.embed import Embed
from lmjax.nn.kernels.spec import PLAINLY, How
from lmjax.nn.position import RelativeBias


class Cache(NamedTuple):
    """What decoding keeps of the tokens it has seen; a pytree that goes in and comes out.

    Attributes:
      layers: keys and values of every layer (see `stack.init_caches`).
      tokens: segment ids and positions of the slots, int32 [B, S] each; empty slots are padding.
      length: int32 scalar, number of filled slots.
    """

    layers: stack.LayerCaches
    tokens: Tokens
    length: jax.Array


class Model(nn.Module):
    """A decoder, an encoder, or an encoder and a decoder that looks at it.

    Attributes:
      config: shape of the network.
      vocab_size: rows of the embedding, V.
      dtype: compute type; parameters, norms, softmax and logits are float32.
      remat, unroll: see `stack.Stack`.
      how: attention is computed.
    """

    config: ModelConfig
    vocab_size: int
    dtype: jnp.dtype = jnp.float32
    remat: stack.Remat = "none"
    unroll: int = 1
    how: How = PLAINLY

    def setup(self):
        config = self.config
        self.embed = Embed(config, self.vocab_size, self.dtype)
        self.embed_dropout = nn.Dropout(config.dropout)
        two = config.architecture == "encoder_decoder"
        if two:  # which has its own positions and norm, if any
            own = self.vocab_size if config.encoder_embeddings else None
            self.encoder_embed = Embed(config, own, self.dtype)
            self.encoder = self._stack(stack.encoder_layout(config, self.how))
        self.stack = self._stack(stack.layout(config, self.how))
        if config.position == "relative":
            if two:
                self.encoder_bias = RelativeBias(config, bidirectional=True)
            self.stack_bias = RelativeBias(config, bidirectional=config.architecture == "encoder")
        if config.has_final_norm:
            if two:
                self.encoder_norm = norms.make(config, self.dtype)
            self.final_norm = norms.make(config, self.dtype)
        if config.has_transform:
            self.transform = heads.Transform(config, self.dtype)
        if not config.predicts_tokens:
            self.classifier = heads.Classifier(config, self.dtype)
            return
        if config.head == "mlm" or config.frozen_logits_bias:
            self.head_bias = self.param(
                "head_bias",
                nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",)),
                (self.vocab_size,),
            )
        if not config.tie_embeddings:
            self.projection = heads.Projection(config, self.vocab_size)

    def _stack(self, layout: stack.Layout) -> stack.Stack:
        unroll = min(self.unroll, layout.num_units)
        return stack.Stack(self.config, layout, self.dtype, self.remat, unroll)

    def __call__(self, batch: Mapping[str, jax.Array], *, deterministic: bool = True) -> jax.Array:
        """Logits of the predictions of a `lmjax.batch`, float32 [B, P, classes]."""
        hidden_BTD, _ = self.trunk(batch, deterministic=deterministic)
        return self.predict(hidden_BTD, batch, deterministic=deterministic)

    def predict(
        self,
        hidden_BTD: jax.Array,
        batch: Mapping[str, jax.Array],
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        """Logits of the predictions, float32: of ids or classes [B, P, V], of spans [B, 2, T].

        Args:
          hidden_BTD: from `trunk`.
          batch: `predict_at`, where only some positions predict; `segment_ids` for spans and means.
          deterministic: as in `trunk`.
        """
        if self.config.head == "pooled" and self.config.classifier_pooling == "mean":
            hidden_BPD = heads.mean(hidden_BTD, batch["segment_ids"])
        else:
            hidden_BPD = heads.predicted(hidden_BTD, batch)
        if self.config.predicts_tokens:
            return self.head(hidden_BPD)
        logits_BPC = self.classify(hidden_BPD, deterministic=deterministic)
        if self.config.head != "span":
            return logits_BPC
        real_B1T = batch["segment_ids"][:, None] > 0  # padding is no part of an answer
        return jnp.where(real_B1T, logits_BPC.swapaxes(1, 2), heads.NEVER)

    def encode(self, batch: Mapping[str, jax.Array], *, deterministic: bool = True) -> Memory:
        """The encoder's side of an encoder-decoder.

        Args:
          batch: int32 `enc_inputs`, `enc_segment_ids`, `enc_positions`, [B, S] each.
          deterministic: as in `trunk`.
        """
        tokens = Tokens(batch["enc_segment_ids"], batch["enc_positions"])
        shared_VD = None if self.config.encoder_embeddings else self.embed.token
        x_BSD = self.encoder_embed(batch["enc_inputs"], tokens.positions, token_VD=shared_VD)
        x_BSD = self._dropped(x_BSD, deterministic)
        index_S = jnp.arange(x_BSD.shape[1])
        bias_1HSS = (
            self.encoder_bias(index_S, index_S) if self.config.position == "relative" else None
        )
        context = Context(tokens, tokens, bias_1HSS)
        x_BSD, _ = self.encoder(x_BSD, context, deterministic=deterministic)
        if self.config.has_final_norm:
            x_BSD = self.encoder_norm(x_BSD)
        return Memory(x_BSD, tokens)

    def trunk(
        self,
        batch: Mapping[str, jax.Array],
        *,
        deterministic: bool = True,
        cache: Cache | None = None,
        memory: Memory | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Hidden states.

        Args:
          batch: int32 `inputs`, `segment_ids`, `positions`, [B, T] each, `token_types` if there
            are any; for an encoder-decoder also what `encode` takes.
          deterministic: False applies dropout and needs an RNG named 'dropout'.
          cache: of earlier calls (or `init_cache`'s); the batch's tokens follow on those in it,
            and their positions and segments must too.
          memory: of an earlier `encode`, which is then not run again; without its hidden states
            where the cache keeps what was made of them.

        Returns:
          (hidden_BTD in `dtype`, the cache with the batch in it or None).
        """
        config = self.config
        if config.architecture == "encoder_decoder" and memory is None:
            memory = self.encode(batch, deterministic=deterministic)
        queries = keys = Tokens(batch["segment_ids"], batch["positions"])
        layers = length = None
        if cache is not None:
            layers, keys, length = cache
            keys = jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, length, axis=1),
                keys,
                queries,
            )
        x_BTD = self.embed(batch["inputs"], queries.positions, batch.get("token_types"))
        x_BTD = self._dropped(x_BTD, deterministic)
        bias_1HTS = None
        if config.position == "relative":
            first = 0 if length is None else length
            index_T = first + jnp.arange(x_BTD.shape[1])
            bias_1HTS = self.stack_bias(index_T, jnp.arange(keys.positions.shape[1]))
        context = Context(queries, keys, bias_1HTS, length, memory)
        x_BTD, layers = self.stack(x_BTD, context, layers, deterministic=deterministic)
        if config.has_final_norm:
            x_BTD = self.final_norm(x_BTD)
        if cache is not None:
            cache = Cache(layers, keys, length + batch["inputs"].shape[1])
        return x_BTD, cache

    def _dropped(self, x_BTD: jax.Array, deterministic: bool) -> jax.Array:
        """What goes from the embeddings into a stack."""
        x_BTD = self.embed_dropout(x_BTD, deterministic=deterministic)
        return residual.constrained(x_BTD)

    def classify(self, hidden_BPD: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Logits of hidden states by a head that predicts no tokens, float32 [B, P, C]."""
        if self.config.has_transform:
            hidden_BPD = self.transform(hidden_BPD)
        logits_BPC = self.classifier(hidden_BPD, deterministic=deterministic)
        return nn.with_logical_constraint(logits_BPC, ("act_batch", None, None))

    def head(self, hidden_BPD: jax.Array) -> jax.Array:
        """Logits of hidden states over the vocabulary, float32 [B, P, V]."""
        logits_BPV = heads.logits(self.project(hidden_BPD))
        return nn.with_logical_constraint(logits_BPV, ("act_batch", "act_length", "act_vocab"))

    def project_predicted(
        self, hidden_BTD: jax.Array, batch: Mapping[str, jax.Array]
    ) -> heads.Projected:
        """As `project`, of the positions that a batch predicts."""
        return self.project(heads.predicted(hidden_BTD, batch))

    def project(self, hidden_BPD: jax.Array) -> heads.Projected:
        """What the logits of hidden states over the vocabulary are the product of."""
        config = self.config
        if config.head == "mlm":
            hidden_BPD = self.transform(hidden_BPD)
        if config.scale_logits:
            hidden_BPD = hidden_BPD * config.hidden_size**-0.5
        matrix_VD = self.embed.token if config.tie_embeddings else self.projection()
        bias_V = None
        if config.head == "mlm":
            bias_V = self.head_bias
        elif config.frozen_logits_bias:
            bias_V = jax.lax.stop_gradient(self.head_bias)
        return heads.Projected(hidden_BPD.astype(self.dtype), matrix_VD, bias_V)

    def init_cache(
        self, batch_size: int, max_length: int, memory_length: int | None = None
    ) -> Cache:
        """An empty cache for `max_length` tokens; needs no parameters, so call it unbound.

        With `memory_length`, the encoder's, what cross-attention makes of its result is kept, too:
        `trunk` is given that once, and then a `Memory` of its tokens alone.
        """
        empty_BS = jnp.zeros((batch_size, max_length), jnp.int32)
        layers = stack.init_caches(
            self.config,
            stack.layout(self.config),
            batch_size,
            max_length,
            self.dtype,
            memory_length,
        )
        return Cache(layers, Tokens(empty_BS, empty_BS), jnp.int32(0))


def smallest_batch(config: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The least that a model can be traced with."""
    names = ["inputs", "segment_ids", "positions"]
    if config.architecture == "encoder_decoder":
        names += [f"enc_{name}" for name in names]
    return dict.fromkeys(names, jax.ShapeDtypeStruct((1, 1), jnp.int32))
