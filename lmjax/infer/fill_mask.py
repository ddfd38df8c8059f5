"""What stands behind the masks of a text: each mask's likeliest pieces, by a masked LM.

`<mask>` stands for the mask token in a text, whatever the tokenizer calls it; its own spelling will
do, too. Every mask is predicted by itself from all the rest, the other masks as they are, so that
`<mask><mask>` asks for the two pieces of one word, one apart from the other. White space in front
of a mask belongs to what it hides where a word's piece brings its space along.

Shape suffixes: B rows, T length, P masks of a row, D hidden_size, V vocabulary, K candidates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lmjax.data.tokenizer import AnyTokenizer, IdsTokenizer
from lmjax.errors import UserError
from lmjax.infer import batches
from lmjax.infer.batches import Lengths, Shapes
from lmjax.infer.examples import Framing, clean
from lmjax.nn.heads import predicted
from lmjax.nn.model import Model
from lmjax.objectives.description import MASK
from lmjax.parallel import rules

_MASKS_PER_ROW = 8  # a text with more of them takes several rows


@dataclass(frozen=True)
class Masked:
    """A text with masks.

    Attributes:
      ids: int32 [T], framed.
      masks: int32 [N], where the masks stand.
    """

    ids: np.ndarray
    masks: np.ndarray


class Candidate(NamedTuple):
    """What a mask may hide: an id, and its probability among all ids."""

    id: int
    probability: float


class _Row(NamedTuple):
    example: int
    ids: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class MaskFraming:
    """A line's object, or a text -> what is predicted of it.

    Raises:
      UserError: such a model fills no masks.
    """

    framing: Framing

    def __post_init__(self) -> None:
        check(self.framing)

    def __call__(self, record: Mapping[str, Any]) -> Masked:
        """Takes the field `text`.

        Raises:
          UserError: there is none, it has no mask, or it is too long.
        """
        if "text" not in record:
            raise UserError("has no field text; a line to fill has text with <mask> in it")
        tokenizer, text = self.framing.tokenizer, clean("text", record["text"])
        first, *rest = cut(text, tokenizer)
        if not rest:
            raise UserError(f"has no {MASK}; write one where a piece is to be filled in")
        ids = [*tokenizer.encode(first)]
        for part in rest:
            ids += [tokenizer.mask_id, *tokenizer.encode(part)]
        framed = self.framing.framed(ids)
        self.framing.check_length(len(framed))
        (masks,) = np.nonzero(framed == tokenizer.mask_id)
        return Masked(framed, masks.astype(np.int32))


def check(framing: Framing) -> None:
    """Raises UserError unless a model fills masks of texts."""
    kind = framing.config.architecture
    if kind == "encoder_decoder":
        raise UserError("this is an encoder-decoder; tools/generate.py fills spans with it")
    if kind != "encoder":
        raise UserError(f"this is a {kind}, which fills no masks; tools/generate.py goes on a text")
    if framing.config.head != "mlm":
        raise UserError("this encoder has no masked-LM head; take the run it was started from")
    if isinstance(framing.tokenizer, IdsTokenizer):
        raise UserError(
            "this model was imported without its tokenizer, so it takes no text; import it again "
            "with tokenizer.json beside its weights"
        )
    if framing.tokenizer.mask_id is None:
        raise UserError("this model's tokenizer names no mask; take one that was trained with it")


def cut(text: str, tokenizer: AnyTokenizer) -> list[str]:
    """The text between the masks, without the white space that belongs to a mask."""
    spellings = {re.escape(MASK), re.escape(tokenizer.piece(tokenizer.mask_id))}
    before, behind = (r"\s*" * takes for takes in tokenizer.mask_takes_space)
    return re.split(f"{before}(?:{'|'.join(sorted(spellings))}){behind}", text)


class Filler:
    """(masked texts) -> candidates of each mask, likeliest first; run it in the mesh's context."""

    def __init__(
        self,
        model: Model,
        params: Any,
        batch_sharding: NamedSharding,
        tokenizer: AnyTokenizer,
        *,
        top_k: int,
        batch_tokens: int,
    ):
        """Fills with a model.

        Args:
          model, params, batch_sharding, batch_tokens: as of `score.Scorer`.
          tokenizer: whose special ids are never proposed, nor what is none of its ids.
          top_k: candidates of each mask, at most.
        """
        self._params, self._sharding = params, batch_sharding
        self._shapes = Shapes(model.config, batch_sharding, batch_tokens)
        proposed_V = np.zeros(model.vocab_size, bool)
        proposed_V[: tokenizer.vocab_size] = True
        proposed_V[list(tokenizer.special_ids)] = False
        top_k = min(top_k, int(proposed_V.sum()))
        replicated = NamedSharding(batch_sharding.mesh, PartitionSpec())
        self._candidates = jax.jit(
            partial(_candidates, model, proposed_V, top_k), out_shardings=replicated
        )

    def __call__(
        self,
        examples: Sequence[Masked],
        on_batch: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[list[list[Candidate]]]:
        """Candidates of each mask of each text.

        Args:
          examples: none longer than a learned position table.
          on_batch: told (masks filled, masks to fill).
        """
        found: list[list[list[Candidate]]] = [[] for _ in examples]
        lengths = {i: (0, len(e.ids)) for i, e in enumerate(examples) if len(e.masks)}
        done, of = 0, sum(len(e.masks) for e in examples)
        laid = self._shapes.batches(lengths, lambda index: _rows(index, examples[index]))
        for (rows, _), result in batches.read_behind(laid, self._launch):
            ids_BPK, probabilities_BPK = map(np.asarray, result)
            for row, ids_PK, probabilities_PK in zip(
                rows, ids_BPK, probabilities_BPK, strict=False
            ):
                for both in zip(ids_PK[: len(row.masks)], probabilities_PK, strict=False):
                    pairs = zip(*(values.tolist() for values in both), strict=True)
                    found[row.example].append([Candidate(*pair) for pair in pairs])
                done += len(row.masks)
            on_batch(done, of)
        return found

    def _launch(self, laid: tuple[Sequence[_Row], Lengths]) -> tuple[jax.Array, jax.Array]:
        rows, lengths = laid
        num_rows = self._shapes.num_rows(*lengths)
        batch = batches.sequences([row.ids for row in rows], num_rows, lengths[1])
        batch["predict_at"] = batches.filled([row.masks for row in rows], num_rows, _MASKS_PER_ROW)
        return self._candidates(self._params, rules.place(batch, self._sharding))


def _rows(index: int, example: Masked) -> Iterator[_Row]:
    for first in range(0, len(example.masks), _MASKS_PER_ROW):
        yield _Row(index, example.ids, example.masks[first : first + _MASKS_PER_ROW])


def _candidates(
    model: Model,
    proposed_V: np.ndarray,
    top_k: int,
    params: Any,
    batch: Mapping[str, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Ids int32 [B, P, K] and their probabilities among all ids, float32 [B, P, K]."""
    variables = {"params": params}
    hidden_BTD, _ = model.apply(variables, batch, method="trunk")
    logits_BPV = model.apply(variables, predicted(hidden_BTD, batch), method="head")
    log_z_BP1 = jax.nn.logsumexp(logits_BPV, axis=-1, keepdims=True)
    logits_BPK, ids_BPK = jax.lax.top_k(jnp.where(proposed_V, logits_BPV, -jnp.inf), top_k)
    return ids_BPK, jnp.exp(logits_BPK - log_z_BP1)


def described(
    example: Masked, found: Sequence[Sequence[Candidate]], tokenizer: AnyTokenizer
) -> list[list[dict[str, Any]]]:
    """Candidates as they are written: `token`, `id`, `probability`; for one mask the `sequence`."""
    masks = [
        [
            {"token": tokenizer.piece(one.id), "id": one.id, "probability": one.probability}
            for one in candidates
        ]
        for candidates in found
    ]
    if len(masks) == 1:
        for entry in masks[0]:
            ids = example.ids.copy()
            ids[example.masks] = entry["id"]
            entry["sequence"] = tokenizer.decode(ids)
    return masks
