"""What users of Hugging Face's transformers make batches with: what our input is held against.

Masked LM has `DataCollatorForLanguageModeling`, here in the form of features and tensors that is
the fastest on the machine at hand. T5's span corruption is in no package: transformers had it in an
example (`FlaxDataCollatorForT5MLM`), whose steps `SpanCollator` takes, in our words; it was
1.1 to 1.2 times as fast as the example's last version.

Both start from full rows that lie ready in memory: they neither read nor keep documents apart.

Dimension key: B rows, W raw tokens of a row, N parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from typing import Any

import numpy as np

from lmjax.batch import Ids
from lmjax.config import ObjectiveConfig
from lmjax.errors import UserError

_TRIALS, _TRIAL_SECONDS = 4, 0.1


@dataclass(frozen=True)
class Peer:
    """One way to make batches.

    Attributes:
      name: of the collator.
      form: what it takes and gives.
      call: makes one batch of all rows.
      tokens: raw tokens in it.
    """

    name: str
    form: str
    call: Callable[[], Any]
    tokens: int


@dataclass(frozen=True)
class SpanCollator:
    """Cuts random spans out of rows of equal length, a row at a time; see the module's docstring.

    As in T5, a row begins with a span that stays and ends with one that goes, and every way to cut
    it is as likely as any other.
    """

    mask_rate: float
    mean_span_length: float
    ids: Ids
    rng: np.random.Generator

    def __call__(self, rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Rows of "input_ids" -> "input_ids", "labels", "decoder_input_ids", [B, ...] each."""
        tokens_BW = np.stack([row["input_ids"] for row in rows])
        hidden_BW = np.stack([self.hidden(tokens_BW.shape[1]) for _ in rows])
        labels = self._without(tokens_BW, ~hidden_BW)
        decoder = np.empty_like(labels)
        decoder[:, 0], decoder[:, 1:] = self.ids.decoder_start, labels[:, :-1]
        return {
            "input_ids": self._without(tokens_BW, hidden_BW),
            "labels": labels,
            "decoder_input_ids": decoder,
        }

    def hidden(self, width: int) -> np.ndarray:
        """Which tokens of a row to hide, bool [W]."""
        num_hidden = min(max(round(width * self.mask_rate), 1), width - 1)
        num_spans = max(round(num_hidden / self.mean_span_length), 1)
        lengths = np.empty(2 * num_spans, np.int64)
        lengths[0::2] = self._parts(width - num_hidden, num_spans)
        lengths[1::2] = self._parts(num_hidden, num_spans)
        starts = np.zeros(width, np.int8)
        starts[np.cumsum(lengths)[:-1]] = 1
        return np.cumsum(starts) % 2 == 1

    def _parts(self, total: int, num_parts: int) -> np.ndarray:
        """A random partition of `total` into positive parts, [N]."""
        begins = np.arange(total - 1) < num_parts - 1
        self.rng.shuffle(begins)
        part = np.cumsum(np.pad(begins, (1, 0)))
        return np.unique(part, return_counts=True)[1]

    def _without(self, tokens_BW: np.ndarray, out_BW: np.ndarray) -> np.ndarray:
        """The tokens that are not out, with a sentinel for every span that is, and eos."""
        starts_BW = out_BW.copy()
        starts_BW[:, 1:] &= ~out_BW[:, :-1]
        sentinel_BW = self.ids.sentinel(np.cumsum(starts_BW, axis=1) - 1)
        kept_BW = np.where(starts_BW, sentinel_BW, tokens_BW)[starts_BW | ~out_BW]
        kept_BW = kept_BW.reshape(len(tokens_BW), -1)
        return np.pad(kept_BW, ((0, 0), (0, 1)), constant_values=self.ids.eos)


def fastest(objective: ObjectiveConfig, ids: Ids, tokens_BW: np.ndarray) -> Peer:
    """The fastest collator for an objective.

    Args:
      objective: what it has to do.
      ids: of the run.
      tokens_BW: rows of text, without special tokens of the objective's own.

    Raises:
      UserError: there is none for this objective.
      ModuleNotFoundError: transformers has one and is not installed.
    """
    makers = {"mlm": _masked, "span_corruption": _span_corruption}
    if objective.name not in makers:
        raise UserError(
            f"--against=hf knows no collator for config.objective.name={objective.name!r}, only "
            f"for {' and '.join(makers)}; leave --against out"
        )
    peers = makers[objective.name](objective, ids, tokens_BW)
    trials = [[_rate(peer) for peer in peers] for _ in range(_TRIALS)]
    return peers[int(np.argmax(np.max(trials, axis=0)))]  # the least disturbed of each


def _rate(peer: Peer) -> float:
    """Tokens per CPU second, by a short trial."""
    done, began = 0, time.process_time()
    while (spent := time.process_time() - began) < _TRIAL_SECONDS:
        peer.call()
        done += 1
    return done * peer.tokens / spent


def _span_corruption(objective: ObjectiveConfig, ids: Ids, tokens_BW: np.ndarray) -> list[Peer]:
    rng = np.random.default_rng(0)
    collator = SpanCollator(objective.mask_rate, objective.mean_span_length, ids, rng)
    rows = [{"input_ids": row} for row in tokens_BW.astype(np.int64)]
    return [
        Peer("the T5 example of transformers", "arrays", lambda: collator(rows), tokens_BW.size)
    ]


def _masked(objective: ObjectiveConfig, ids: Ids, tokens_BW: np.ndarray) -> list[Peer]:
    """`DataCollatorForLanguageModeling` with rows in all forms that it takes."""
    import transformers

    rows = tokens_BW.astype(np.int64)
    rows = np.pad(rows, ((0, 0), (1, 1)), constant_values=((0, 0), (ids.bos, ids.eos)))
    is_special = np.isin(rows, ids.special).astype(np.int64)
    forms: dict[str, dict[str, list[Any]]] = {
        "np": {
            "lists and masks": _features(rows.tolist(), is_special.tolist()),
            "arrays and masks": _features(rows, is_special),
            "arrays": list(rows),
        }
    }
    if util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)  # rates are per core
        rows_pt, is_special_pt = torch.from_numpy(rows), torch.from_numpy(is_special)
        forms["pt"] = {
            "lists and masks": forms["np"]["lists and masks"],
            "tensors and masks": _features(rows_pt, is_special_pt),
            "tensors": list(rows_pt),
        }
    tokenizer, peers = _tokenizer(ids), []
    for kind, features in forms.items():
        collator = transformers.DataCollatorForLanguageModeling(
            tokenizer,
            mlm_probability=objective.mask_rate,
            mask_replace_prob=objective.mask_token_share,
            random_replace_prob=objective.random_token_share,
            return_tensors=kind,
        )
        for form, given in features.items():
            call = lambda collator=collator, given=given: collator(given)
            peers.append(Peer(type(collator).__name__, f"{form} to {kind}", call, tokens_BW.size))
    return peers


def _features(rows: Any, is_special: Any) -> list[dict[str, Any]]:
    pairs = zip(rows, is_special, strict=True)
    return [{"input_ids": row, "special_tokens_mask": special} for row, special in pairs]


def _tokenizer(ids: Ids) -> Any:
    """A tokenizer of transformers with these ids, which is all that its collators ask of one."""
    import tokenizers
    import transformers

    special = {"pad_token": ids.pad, "eos_token": ids.eos, "bos_token": ids.bos}
    special |= {"cls_token": ids.bos, "sep_token": ids.eos}
    special |= {"mask_token": ids.mask, "unk_token": ids.unk}
    words = {f"<{token}>": token for token in range(ids.num_ids)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(
            tokenizers.models.WordLevel(words, unk_token=f"<{ids.unk}>")
        ),
        **{name: f"<{token}>" for name, token in special.items() if token is not None},
    )
