"""Vectors of texts: hidden states behind the last layer, as they are or one for each text.

They come from an encoder, from the encoder of an encoder-decoder, or from a decoder, whose states
have seen only what stands before them. Special ids around a text (all but unk) count for `cls`
alone.

| pooling | vector |
|---|---|
| `mean`, `max` | over the text's tokens |
| `cls` | of the first id, the special one that stands in front of a text |
| `last` | of the text's last token, which in a decoder has seen all of it |
| `tokens` | one for each of the text's tokens |

Shape suffixes: B rows, T length, D hidden_size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lmjax.data.progress import Progress
from lmjax.errors import UserError
from lmjax.infer import batches, jsonl
from lmjax.infer.batches import Lengths, Shapes
from lmjax.infer.examples import Framing
from lmjax.infer.jsonl import Line
from lmjax.nn.model import Model
from lmjax.parallel import rules

Pooling = Literal["mean", "cls", "max", "last", "tokens"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


class Text(NamedTuple):
    """Ids that a model reads, int32 [T], and which of them are the text's, bool [T]."""

    ids: np.ndarray
    is_text: np.ndarray


@dataclass(frozen=True)
class TextFraming:
    """A line's object -> ids, framed as in training.

    Attributes:
      framing: of the model.
      pooling: what will be made of them.
      text_key: field of the text; a line may have `token_ids` instead.

    Raises:
      UserError: there is no special id in front of a text, and `cls` asks for it.
    """

    framing: Framing
    pooling: Pooling = "mean"
    text_key: str = "text"

    def __post_init__(self) -> None:
        if self.pooling == "cls" and not self.framing.frame[0]:
            raise UserError(
                "--pooling=cls takes the special token in front of a text, and this model was "
                "trained without one; take --pooling=mean"
            )

    def __call__(self, record: Mapping[str, Any]) -> Text:
        """Ids of the text.

        Raises:
          UserError: there is none, it has no tokens to pool, or too many.
        """
        key, tokenizer = self.text_key, self.framing.tokenizer
        given = {"text": record[key]} if key in record else {}
        given |= {"token_ids": record["token_ids"]} if "token_ids" in record else {}
        if not given:
            raise UserError(f"has no field {key}; set --text_key, or give token_ids")
        (ids,) = self.framing.sequences(given, ("text",))
        self.framing.check_length(len(ids))
        special = [i for i in tokenizer.special_ids if i != tokenizer.unk_id]
        is_text = ~np.isin(ids, special)
        if not (is_text.any() or self.pooling == "tokens" or (self.pooling == "cls" and len(ids))):
            raise UserError("holds no token of a text, so there is no vector; leave the line out")
        return Text(ids, is_text)


class Embedder:
    """(sequences) -> their vectors; run it in the mesh's context."""

    def __init__(
        self,
        model: Model,
        params: Any,
        batch_sharding: NamedSharding,
        *,
        pooling: Pooling,
        batch_tokens: int,
    ):
        """Embeds with a model.

        Args:
          model, params, batch_sharding, batch_tokens: as of `score.Scorer`.
          pooling: one of `POOLINGS`.
        """
        self._params, self._sharding, self._pooling = params, batch_sharding, pooling
        self._shapes = Shapes(model.config, batch_sharding, batch_tokens)
        self._width = model.config.hidden_size
        self._two_sides = model.config.architecture == "encoder_decoder"
        replicated = NamedSharding(batch_sharding.mesh, PartitionSpec())
        self._vectors = jax.jit(partial(_vectors, model, pooling), out_shardings=replicated)

    def __call__(
        self,
        examples: Sequence[Text],
        on_batch: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[np.ndarray]:
        """Float32 [D] of each; with `tokens` [number of the text's tokens, D].

        Args:
          examples: none longer than a learned position table.
          on_batch: told (tokens embedded, tokens to embed).
        """
        found = [np.zeros((0, self._width), np.float32)] * len(examples)  # an empty text's tokens
        lengths = {i: (0, len(e.ids)) for i, e in enumerate(examples) if len(e.ids)}
        done, of = 0, sum(len(example.ids) for example in examples)
        laid = self._shapes.batches(lengths, lambda index: [(index, examples[index])])
        for (rows, _), result in batches.read_behind(laid, self._launch):
            for (index, example), vectors in zip(rows, np.asarray(result), strict=False):
                if self._pooling == "tokens":
                    vectors = vectors[: len(example.ids)][example.is_text]
                found[index] = np.array(vectors)  # a copy: the batch is not kept
                done += len(example.ids)
            on_batch(done, of)
        return found

    def _launch(self, laid: tuple[Sequence[tuple[int, Text]], Lengths]) -> jax.Array:
        rows, (_, length) = laid
        num_rows = self._shapes.num_rows(0, length)
        batch = batches.sequences([example.ids for _, example in rows], num_rows, length)
        if self._two_sides:
            batch = batches.encoder_side(batch)
        batch["is_text"] = batches.filled([e.is_text for _, e in rows], num_rows, length)
        return self._vectors(self._params, rules.place(batch, self._sharding))


def _vectors(
    model: Model, pooling: Pooling, params: Any, batch: Mapping[str, jax.Array]
) -> jax.Array:
    """Float32 [B, D], or [B, T, D] with `tokens`."""
    variables = {"params": params}
    if model.config.architecture == "encoder_decoder":
        hidden_BTD = model.apply(variables, batch, method="encode").hidden_BSD
    else:
        hidden_BTD, _ = model.apply(variables, batch, method="trunk")
    hidden_BTD = hidden_BTD.astype(jnp.float32)
    is_text_BT1 = (batch["is_text"] > 0)[:, :, None]
    if pooling == "mean":
        count_B1 = jnp.maximum(is_text_BT1.sum(axis=1), 1)
        return jnp.where(is_text_BT1, hidden_BTD, 0.0).sum(axis=1) / count_B1
    if pooling == "max":
        return jnp.where(is_text_BT1, hidden_BTD, -jnp.inf).max(axis=1)
    if pooling == "cls":
        return hidden_BTD[:, 0]
    if pooling == "last":
        index_BT = jnp.arange(hidden_BTD.shape[1]) * batch["is_text"]
        last_B11 = index_BT.max(axis=1)[:, None, None]
        return jnp.take_along_axis(hidden_BTD, last_B11, axis=1)[:, 0]
    return hidden_BTD


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., D] of length 1."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(np.float32).tiny)


def embed_files(
    files: Sequence[str],
    frame: TextFraming,
    embedder: Embedder,
    *,
    normalize: bool = False,
    progress: Progress = lambda done, total, tokens: None,
) -> Iterator[tuple[list[Line], list[Text], list[np.ndarray]]]:
    """Lines of JSONL files, what was read of them and their vectors, some thousands at a time.

    Raises:
      UserError: a line is no JSON object, `frame` refuses it, or its vector is not finite.
    """
    for lines, on_batch in jsonl.read(files, progress):
        texts = jsonl.made(lines, frame)
        vectors = embedder(texts, on_batch)
        for line, found in zip(lines, vectors, strict=True):
            if not np.isfinite(found).all():
                raise jsonl.diverged(line.place, "a vector that is not finite")
        yield lines, texts, [normalised(found) if normalize else found for found in vectors]
