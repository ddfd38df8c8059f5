"""Asks a model in training what it makes of a few held-out texts.

The texts are the beginnings of held-out documents, and what of one the model is shown is what its
objective makes of it. By the fields of that batch alone: a decoder reads the first part and goes
on, an encoder fills the masks, and beside a decoder reads what is corrupted and the decoder writes.
A decoder's tokens are drawn, by the same noise each time, since the likeliest ones of a small
model soon go in circles; all else is the likeliest.

Dimension key: N texts, L their length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from lmjax import objectives
from lmjax.batch import Batch, Objective
from lmjax.config import Config
from lmjax.data.store import Store
from lmjax.data.tokenizer import AnyTokenizer, IdsTokenizer
from lmjax.errors import UserError
from lmjax.infer.generate import Generator
from lmjax.infer.prompts import Asked, Prompts
from lmjax.infer.sampling import Sampling
from lmjax.nn.kernels.spec import PLAINLY
from lmjax.noise import RowNoise
from lmjax.objectives.description import MASK
from lmjax.parallel import hosts, rules
from lmjax.train.console import logger
from lmjax.train.data import Data
from lmjax.train.samples import Sample
from lmjax.train.setup import Program, decoder_start_id
from lmjax.train.step import make_predict_step

_LENGTH = 80  # tokens of a text
_GIVEN = 0.4  # share of it that a decoder reads
_SHORTEST = 4  # a text of fewer tokens says nothing
_LOOKED_AT = 256  # documents, for one that is long enough
_DRAWN = Sampling(temperature=0.7)

# (parameters, progress, told how many are done of how many) -> samples; in the mesh's context.
Sampler = Callable[[Any, Callable[[int, int], None]], list[Sample]]


def make(program: Program, data: Data) -> Sampler | None:
    """What asks the model of a program; None: nothing does, which is told where it was asked for.

    A model that cannot be asked is no reason for its training to end: that is told, and there are
    no samples this time. Labelled examples have answers, which are samples enough
    (`Answering.samples`).
    """
    config, tokenizer = program.config, data.stores.tokenizer
    number = config.eval.num_samples
    if not number or objectives.is_labelled(config):
        return None
    if hosts.number() > 1:
        logger.info("no text samples: the model is spread over several hosts")
        return None
    if isinstance(tokenizer, IdsTokenizer):
        logger.info("no text samples: the model was imported without its tokenizer")
        return None
    texts = _texts(data.stores.held_out, number, min(_LENGTH, program.eval_objective.window_stride))
    if not texts:
        logger.info(f"no text samples: no held-out document has {_SHORTEST} tokens")
        return None
    batch = _batch(texts, program.eval_objective, config.train.seed, tokenizer.eos_id)
    kind = _restoring if "enc_inputs" in batch else _filling if "predict_at" in batch else _going_on
    ask = kind(program, tokenizer, batch)

    def sampler(params: Any, progress: Callable[[int, int], None]) -> list[Sample]:
        try:
            return ask(params, progress)
        except (UserError, jax.errors.JaxRuntimeError) as error:
            logger.warning(f"no text samples this time: {str(error).splitlines()[0]}")
            return []

    return sampler


def _texts(stores: Sequence[Store], number: int, longest: int) -> list[tuple[int, np.ndarray]]:
    """(where it starts in its store, ids) of texts of `longest` ids; fewer where none is as long.

    They are taken from each store in turn, spread evenly over its documents.
    """
    found = []
    for k, store in enumerate(stores):
        share = len(range(k, number, len(stores)))
        spread = np.linspace(0, store.num_documents, share, endpoint=False).astype(np.int64)
        starts: dict[int, int] = {}  # -> length
        for first in np.unique(spread).tolist():
            bounds = store.bounds(first, min(first + _LOOKED_AT, store.num_documents))
            length_D = np.minimum(np.diff(bounds) - 1, longest)  # the last is the end token
            length_D[np.isin(bounds[:-1], list(starts))] = 0
            best = int(length_D.argmax())  # the first of the longest
            if length_D[best] >= _SHORTEST:
                starts[int(bounds[best])] = int(length_D[best])
        found += [(start, store.read(np.array([start]), n)[0]) for start, n in starts.items()]
    return found


def _batch(
    texts: Sequence[tuple[int, np.ndarray]], objective: Objective, seed: int, eos_id: int
) -> Batch:
    """A row of each text by itself; where the objective sees what is in front, that is an end."""
    lead = objective.window_length - objective.window_stride
    width = lead + max(len(ids) for _, ids in texts)
    tokens_NW = np.zeros((len(texts), width), np.int32)
    documents_NW = np.full((len(texts), width), -1, np.int64)
    for row, (_, ids) in enumerate(texts):
        tokens_NW[row, : lead + len(ids)] = [*[eos_id] * lead, *ids]
        documents_NW[row, : lead + len(ids)] = 0
    start_N = np.array([start for start, _ in texts])
    return objective(tokens_NW, documents_NW, RowNoise(seed, np.zeros_like(start_N), start_N))


def _real(batch: Batch, name: str, side: str = "segment_ids") -> list[np.ndarray]:
    """A field of each row, without padding."""
    pairs = zip(batch[name], batch[side], strict=True)
    return [field[of_segment > 0] for field, of_segment in pairs]


def _generator(
    program: Program, tokenizer: AnyTokenizer, prompts: Prompts, num_tokens: int, **how: Any
) -> Generator:
    return Generator(
        program.model.clone(how=PLAINLY),
        program.batch_sharding,
        eos_id=tokenizer.eos_id,
        max_new_tokens=num_tokens,
        allowed=prompts.allowed(),
        **how,
    )


def _going_on(program: Program, tokenizer: AnyTokenizer, batch: Batch) -> Sampler:
    """Of a decoder."""
    inputs, targets = _real(batch, "inputs"), _real(batch, "targets")
    most = max(1, int(_GIVEN * batch["inputs"].shape[1]))
    given = [min(most, len(ids) // 2) for ids in inputs]
    asked = [ids[:n] for ids, n in zip(inputs, given, strict=True)]
    spell = _Spelling.of(program.config, tokenizer)
    references = [spell(ids[n - 1 :]) for ids, n in zip(targets, given, strict=True)]
    length = batch["inputs"].shape[1] - most
    generator = _generator(program, tokenizer, spell.prompts, length, sampling=_DRAWN)

    def ask(params: Any, progress: Callable[[int, int], None]) -> list[Sample]:
        progress(0, len(asked))
        found = generator(params, asked, progress=progress)
        return [
            Sample(i, spell(asked[i]), spell(one.ids), references[i]) for i, one in enumerate(found)
        ]

    return ask


def _restoring(program: Program, tokenizer: AnyTokenizer, batch: Batch) -> Sampler:
    """Of an encoder-decoder."""
    asked = _real(batch, "enc_inputs", "enc_segment_ids")
    targets = _real(batch, "targets")
    spell = _Spelling.of(program.config, tokenizer)
    begins = {int(ids[0]) for ids in targets} == {tokenizer.bos_id}
    generator = _generator(
        program,
        tokenizer,
        spell.prompts,
        batch["targets"].shape[1] - begins,
        decoder_start_id=decoder_start_id(program.config, tokenizer),
        forced_first_id=tokenizer.bos_id if begins else None,
    )

    def ask(params: Any, progress: Callable[[int, int], None]) -> list[Sample]:
        progress(0, len(asked))
        found = generator(params, asked, progress=progress)
        return [
            Sample(i, spell(ids), spell(one.ids), spell(targets[i]), spell.filled(ids, one.ids))
            for i, (ids, one) in enumerate(zip(asked, found, strict=True))
        ]

    return ask


def _filling(program: Program, tokenizer: AnyTokenizer, batch: Batch) -> Sampler:
    """Of an encoder; in place of a random token, or of the token itself, it sees the mask, too."""
    whole = [ids.copy() for ids in batch["inputs"]]
    hidden = [at[used > 0] for at, used in zip(batch["predict_at"], batch["weights"], strict=True)]
    for row, at in enumerate(hidden):
        whole[row][at] = batch["targets"][row, : len(at)]
        batch["inputs"][row, at] = tokenizer.mask_id
    spell = _Spelling.of(program.config, tokenizer)
    allowed_V, parts = spell.prompts.allowed(), rules.split(program.mesh).rows
    fields = {name: _padded(field, parts) for name, field in batch.items()}
    predict = make_predict_step(
        program.model.clone(how=PLAINLY), program.shardings.params, program.batch_sharding
    )

    def ask(params: Any, progress: Callable[[int, int], None]) -> list[Sample]:
        progress(0, len(whole))
        logits_NPV = np.asarray(predict(params, program.place(fields)))
        id_NP = np.where(allowed_V, logits_NPV, -np.inf).argmax(axis=-1)
        samples = []
        for row, at in enumerate(hidden):
            filled = whole[row].copy()
            filled[at] = id_NP[row, : len(at)]
            texts = map(spell, (batch["inputs"][row], filled, whole[row]))
            samples.append(Sample(row, *texts))
        return samples

    return ask


def _padded(field: np.ndarray, parts: int) -> np.ndarray:
    """Rows of padding behind a field, so that the parts of the mesh divide it."""
    more = -len(field) % parts
    return np.concatenate([field, np.zeros((more, *field.shape[1:]), field.dtype)])


@dataclass(frozen=True)
class _Spelling:
    """Ids -> text that shows what is hidden."""

    prompts: Prompts
    mask_id: int | None

    @classmethod
    def of(cls, config: Config, tokenizer: AnyTokenizer) -> _Spelling:
        return cls(Prompts.of(config, tokenizer, None), tokenizer.mask_id)

    def __call__(self, ids: np.ndarray) -> str:
        masks = np.flatnonzero(ids == self.mask_id) if self.mask_id is not None else []
        return MASK.join(map(self.prompts.text, np.split(ids, masks)))

    def filled(self, asked: np.ndarray, answer: np.ndarray) -> str | None:
        """What was asked with the spans of the answer in it; None: there are no spans."""
        if not self.prompts.num_sentinels:
            return None
        number = self.prompts.ids.sentinel(asked)
        hides = (number >= 0) & (number < self.prompts.num_spans)
        if not hides.any():
            return None
        is_mode = (number >= self.prompts.num_spans) & (number < self.prompts.num_sentinels)
        return self.prompts.filled(Asked(asked, asked[~is_mode], True), answer)
