"""The three variants as a ladder trains them: one recipe each, and the shapes of its models.

The recipes are those of the mini configs, which use context within a million tokens: a pre-norm
encoder by 30 % of masks, a decoder by causal LM, an encoder-decoder by BART's denoising with AdamW
by the parameter's RMS. All warm up, hold their rate and cool down to nothing; that of AdamW goes
with width^-1/2, from 2e-3 at width 256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmjax import families, flops
from lmjax import fields as fields_lib
from lmjax.config import Config
from lmjax.model_config import ModelConfig

Shares = tuple[tuple[float, ...], ...]

SEQ_LEN = 128  # of the ladder
_NO_BIAS = (r".*(/bias|_bias|/scale)", 0.0)


@dataclass(frozen=True)
class Shape:
    """Width and depth of a model; an encoder-decoder has so many layers twice."""

    hidden_size: int
    num_layers: int

    @property
    def num_heads(self) -> int:
        """Heads of 32, in large models of 64."""
        return max(1, self.hidden_size // (32 if self.hidden_size < 512 else 64))

    def __str__(self) -> str:
        return f"{self.num_layers} layers of {self.hidden_size}"


@dataclass(frozen=True)
class Published:
    """A model to go on from.

    Attributes:
      name: of its repository on the Hub.
      params: all of them.
      about: of what it has read, in words.
    """

    name: str
    params: int
    about: str


@dataclass(frozen=True)
class Variant:
    """How models of one variant are trained.

    Attributes:
      name: encoder, decoder or encoder-decoder.
      loss: what is predicted, in words.
      config: the recipe of configs/ for a full-sized one.
      family: of its models.
      rungs: of the ladder, small ones first.
      held_out: the model by which the ladder's prediction was checked.
      rows: of a batch of the ladder; few for an encoder-decoder, which learns to copy after about a
        thousand steps, however many rows they have, and says little before.
      tokens: of the longest runs of a ladder.
      shares: of that, for the runs of each rung.
      model: fields of `model` besides the shape, by the width.
      objective, optimizer, data: fields of these groups.
      rate: learning rate at width 256.
      rate_power: of the width, that it goes with.
      published: models to go on from, small ones first.
    """

    name: str
    loss: str
    config: str
    family: str
    rungs: tuple[Shape, ...]
    held_out: Shape
    rows: int
    tokens: int
    objective: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    rate: float
    rate_power: float
    published: tuple[Published, ...]
    shares: Shares = ((0.5, 0.7, 1), (0.5, 0.7, 1), (0.5, 1), (0.5, 1))
    mlp_per_width: float = 4
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def shaped(self, shape: Shape) -> dict[str, Any]:
        """Fields of `model` for a shape."""
        sizes = {"hidden_size": shape.hidden_size, "num_layers": shape.num_layers}
        sizes |= {"num_heads": shape.num_heads, "head_dim": None}
        return sizes | {"mlp_size": int(self.mlp_per_width * shape.hidden_size)} | dict(self.model)

    def fields(
        self,
        shape: Shape,
        num_tokens: int,
        vocab_size: int,
        seq_len: int = SEQ_LEN,
        rows: int | None = None,
    ) -> dict[str, Any]:
        """Nested fields of a run: what a config file of it returns.

        Args:
          shape: of the model.
          num_tokens: of text that it trains on, about.
          vocab_size: ids of the tokenizer.
          seq_len: tokens of a row.
          rows: of a batch; None: as in the ladder.
        """
        rate = self.rate * (shape.hidden_size / 256) ** self.rate_power
        rows = rows or self.rows
        num_steps = max(1, round(num_tokens / (rows * seq_len)))
        return {
            "family": self.family,
            "model": self.shaped(shape),
            "objective": dict(self.objective),
            "tokenizer": {"vocab_size": vocab_size},
            "data": {"seq_len": seq_len, **self.data},
            "optimizer": {"learning_rate": float(f"{rate:.3g}"), **self.optimizer},
            "schedule": {
                "name": "wsd",
                "warmup_steps": max(1, num_steps // 20),
                "cooldown_fraction": 0.3,
                "final_fraction": 0.0,
            },
            "train": {"num_steps": num_steps, "global_batch_size": rows},
        }

    def lengths(self, seq_len: int = SEQ_LEN) -> flops.Lengths:
        """Positions of a row, about: what is hidden is a share of it or, of one side, all."""
        if self.name == "encoder":
            return flops.Lengths(seq_len, 0, round(self.objective["mask_rate"] * seq_len))
        return flops.Lengths(seq_len, seq_len * (self.name == "encoder-decoder"), seq_len)

    def num_params(self, shape: Shape) -> int:
        """Parameters of the blocks and their norms: those that a vocabulary has no part in."""
        return block_params(self.model_config(shape, 4096))

    def model_config(self, shape: Shape, vocab_size: int) -> ModelConfig:
        """The network of a shape."""
        return self.resolved(self.fields(shape, 10**6, vocab_size), vocab_size).model

    @staticmethod
    def resolved(raw: Mapping[str, Any], vocab_size: int) -> Config:
        """The config of nested fields, with the size of its vocabulary."""
        raw = families.resolve(raw)
        return fields_lib.from_dict({**raw, "model": {**raw["model"], "vocab_size": vocab_size}})


def block_params(model: ModelConfig) -> int:
    """Parameters of the blocks and their norms (`lmjax.flops.num_params`)."""
    parts = flops.num_params(model)
    return parts["stack"] + parts.get("encoder", 0)


VARIANTS = {
    "encoder": Variant(
        name="encoder",
        loss="masked LM, 30 % of the tokens hidden",
        config="configs/modernbert_base.py",
        family="modernbert",
        rungs=(Shape(32, 2), Shape(48, 2), Shape(64, 2), Shape(96, 3)),
        held_out=Shape(144, 3),
        rows=8,
        tokens=3_000_000,
        shares=((2 / 3, 0.8, 1), (2 / 3, 0.8, 1), (2 / 3, 1), (2 / 3, 1)),
        # From the usual 0.02 such narrow ones sit on the plateau twice as long.
        model={"rope_theta": 10_000.0, "init_std": 0.06},
        mlp_per_width=2,
        objective={"name": "mlm", "mask_rate": 0.3},
        data={"packing": "pack"},
        optimizer={
            "name": "stable_adamw",
            "beta2": 0.98,
            "epsilon": 1e-6,
            "weight_decay": (_NO_BIAS, (r".*", 0.0125)),
            "clip_norm": None,
        },
        rate=2e-3,
        rate_power=-0.5,
        published=(
            Published("answerdotai/ModernBERT-base", 149_655_232, "2T tokens, English and code"),
            Published("answerdotai/ModernBERT-large", 395_881_664, "2T tokens, English and code"),
        ),
    ),
    "decoder": Variant(
        name="decoder",
        loss="causal LM",
        config="configs/gpt2_small.py",
        family="gpt2",
        rungs=(Shape(32, 2), Shape(48, 2), Shape(64, 3), Shape(96, 3)),
        held_out=Shape(128, 4),
        rows=8,
        tokens=3_000_000,
        objective={"name": "clm"},
        optimizer={"beta2": 0.98, "weight_decay": 0.01},
        rate=2e-3,
        rate_power=-0.5,
        published=(
            Published("openai-community/gpt2", 124_439_808, "40 GB of English web pages"),
            Published("openai-community/gpt2-medium", 354_823_168, "40 GB of English web pages"),
            Published("openai-community/gpt2-large", 774_030_080, "40 GB of English web pages"),
        ),
    ),
    "encoder-decoder": Variant(
        name="encoder-decoder",
        loss="denoising, 30 % of the words hidden",
        config="configs/bart_base.py",
        family="t5",
        rungs=(Shape(32, 2), Shape(48, 2), Shape(64, 2), Shape(96, 2)),
        held_out=Shape(144, 2),
        rows=4,
        tokens=1_600_000,
        shares=((0.6, 0.8, 1), (0.6, 0.8, 1), (0.6, 1), (0.6, 1)),
        objective={"name": "denoising", "mask_rate": 0.3},
        optimizer={"name": "adamw_rms", "beta2": 0.98, "weight_decay": 0.0},
        rate=2e-2,
        rate_power=0.0,
        published=(
            Published("facebook/bart-base", 139_420_416, "160 GB of English text"),
            Published("facebook/bart-large", 406_291_456, "160 GB of English text"),
        ),
    ),
}
