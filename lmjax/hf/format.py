"""A published format: the `config.json` of a stock class of transformers, read and written.

What a class can say is a list of keys, each with the field of `ModelConfig` that means the same;
what it says and we have no field for must have the one value that our block computes. A model that
the class cannot express is refused when it is written, a config that our block cannot is when it is
read: nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pydantic

from lmjax.errors import UserError
from lmjax.hf.table import Row
from lmjax.model_config import ModelConfig

Ids = Mapping[str, int | None]  # "pad", "bos", "eos", ... -> id

_REQUIRED = object()

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def activation_name(model: ModelConfig) -> str:
    """Their name of a model's activation."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == model.activation)


@dataclass(frozen=True)
class Key:
    """One key of their config.

    Attributes:
      theirs, ours: its name and that of the field.
      default: the field's value where the key is missing, which many published files leave out.
      values: their values -> ours, where they differ; written is the first one that fits.
      old: another name of the key, in older files.
    """

    theirs: str
    ours: str
    default: Any = _REQUIRED
    values: Mapping[Any, Any] | None = None
    old: str | None = None


@dataclass(frozen=True)
class Format:
    """One stock class.

    Attributes:
      model_type, stock_class: as in config.json.
      base: fields of `ModelConfig` that all its models share.
      keys: what its config says of the rest.
      must: keys with the only value that our block computes; where one is missing, it has it.
      rows: (model, ids) -> the weight table.
      classifiers: the stock classes of the same model with other heads, by `ModelConfig.head`.
      embedding: name of the matrix of tokens.
      head: name of that of the logits, in a file only where they are not one.
      ids: special ids that its config names, with the class's defaults.
      read, write: the keys that are no plain pair, both ways.
      same: tensors that only repeat another one, (model) -> {name: of which}.
      unused: tensors of a file that the class does not compute with, in the same form; they are
        kept for the way back.
      zeros: tensors that a file may leave out, and which are 0 then.
      ignored: regexes of tensors that do not belong to the language model (a pooler, buffers).
      renamed: (regex, replacement) pairs that bring older names to today's.
      prefix: what names of the bare model, without its head, lack.
      tokenizer_of: what a tokenizer.json is built of where there is none: "vocab.txt", as BERT's,
        or "merges.txt", as GPT-2's; None: of nothing.
      tied_by_file: whether the file alone says if the head's matrix is the embedding's.
      generates: whether there is a generation_config.json.
    """

    model_type: str
    stock_class: str
    base: Mapping[str, Any]
    keys: Sequence[Key]
    rows: Callable[[ModelConfig, Ids], Sequence[Row]]
    embedding: str
    head: str
    classifiers: Mapping[str, str] = field(default_factory=dict)
    must: Mapping[str, Any] = field(default_factory=dict)
    ids: Ids = field(default_factory=dict)
    read: Callable[[Mapping[str, Any], Ids], dict[str, Any]] = lambda config, ids: {}
    write: Callable[[ModelConfig, Ids], dict[str, Any]] = lambda model, ids: {}
    same: Callable[[ModelConfig], Mapping[str, str]] = lambda model: {}
    unused: Callable[[ModelConfig], Mapping[str, str]] = lambda model: {}
    zeros: Sequence[str] = ()
    ignored: Sequence[str] = ()
    renamed: Sequence[tuple[str, str]] = ()
    prefix: str = ""
    tokenizer_of: str | None = None
    tied_by_file: bool = False
    generates: bool = True

    def with_head(self, head: str) -> Format:
        """The format of a model with a head that predicts no tokens; of others this one.

        Raises:
          UserError: there is no such class.
        """
        if head in ("lm", "mlm"):
            return self
        if head not in self.classifiers:
            raise self._inexpressible("head", head)
        none = lambda model: {}  # what belongs to the head over the vocabulary
        return replace(
            self,
            stock_class=self.classifiers[head],
            base={**self.base, "head": head},
            same=none,
            unused=none,
        )

    def read_ids(self, config: Mapping[str, Any]) -> dict[str, int | None]:
        """Special ids of their config; of several end ids the first."""
        ids = {}
        for name, default in self.ids.items():
            value = config.get(f"{name}_token_id", default)
            value = value[0] if isinstance(value, list) else value
            if value is not None and type(value) is not int:
                raise UserError(f"config.json: {name}_token_id={value!r} is no id")
            ids[name] = value
        return ids

    def read_fields(self, config: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
        """Fields of `ModelConfig` that their config says, all but `tie_embeddings`.

        Raises:
          UserError: a key is missing, or says what our block does not compute.
        """
        for name, value in self.must.items():
            if config.get(name, value) not in (value, None):
                raise UserError(
                    f"config.json: {name}={config[name]!r} of a {self.model_type} model is not "
                    f"supported, only {value!r} is"
                )
        fields = dict(self.base)
        for key in self.keys:
            value = config.get(key.theirs, config.get(key.old, key.default))
            if value is _REQUIRED:
                raise UserError(
                    f"config.json: {key.theirs} of a {self.model_type} model is missing"
                )
            if isinstance(value, (list, dict)):
                raise UserError(f"config.json: {key.theirs}={value!r} is neither number nor name")
            if key.values is not None and key.theirs in config:
                if value not in key.values:
                    raise UserError(
                        f"config.json: {key.theirs}={value!r} is not supported, only "
                        f"{', '.join(map(repr, key.values))} are"
                    )
                value = key.values[value]
            fields[key.ours] = value
        return fields | self.read(config, ids)

    def write_config(self, model: ModelConfig, ids: Ids, dtype: str) -> dict[str, Any]:
        """Their config.json of a model.

        Raises:
          UserError: the class cannot express the model; the field is named.
        """
        config: dict[str, Any] = {
            "architectures": [self.stock_class],
            "model_type": self.model_type,
            "dtype": dtype,
            "vocab_size": model.vocab_size,
            "tie_word_embeddings": model.tie_embeddings,
        }
        for key in self.keys:
            value = value_of(model, key.ours)
            if key.values is not None:
                fitting = [theirs for theirs, ours in key.values.items() if ours == value]
                if not fitting:
                    raise self._inexpressible(key.ours, value)
                value = fitting[0]
            config[key.theirs] = value
        config |= {f"{name}_token_id": ids.get(name) for name in self.ids}
        config |= self.write(model, ids)
        said = {"tie_embeddings": model.tie_embeddings, "vocab_size": model.vocab_size}
        try:
            meant = ModelConfig(**self.read_fields(config, ids) | said)
        except pydantic.ValidationError as error:  # such as a head's width that no key says
            raise UserError(
                f"{self.stock_class} of transformers cannot say this model: "
                f"{error.errors()[0]['msg']}"
            ) from None
        if model.position == "learned":
            left_out = max(row.skip for row in self.rows(model, ids))
            if meant.position_offset + left_out != model.position_offset:
                raise self._inexpressible(
                    "position_offset", model.position_offset, meant.position_offset
                )
        says, wanted = essence(meant), essence(model)
        for name, value in wanted.items():
            if says.get(name) != value:
                raise self._inexpressible(name, value, says.get(name))
        return config

    def _inexpressible(self, name: str, value: Any, only: Any = None) -> UserError:
        instead = f", only {only!r}" if only is not None else ""
        return UserError(
            f"config.model.{name}={value!r} cannot be said by {self.stock_class} of "
            f"transformers{instead}; this model has no stock class to be loaded by"
        )


# Fields that stand for something else where they are not set -> the property that says for what.
_RESOLVED = {
    "num_kv_heads": "kv_heads",
    "num_encoder_layers": "encoder_layers",
    "head_dim": "head_width",
    "mlp_size": "mlp_width",
    "attention_bias": "attention_has_bias",
    "mlp_bias": "mlp_has_bias",
    "norm_bias": "norm_has_bias",
}

_ALWAYS = (
    "architecture",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "scale_attention",
    "mlp_size",
    "mlp_gated",
    "activation",
    "norm",
    "norm_placement",
    "norm_epsilon",
    "embedding_norm",
    "first_attention_norm",
    "position",
    "qk_norm",
    "token_types",
    "attention_bias",
    "mlp_bias",
    "norm_bias",
    "tie_embeddings",
    "encoder_embeddings",
    "head",
    "frozen_logits_bias",
    "scale_logits",
)


def value_of(model: ModelConfig, name: str) -> Any:
    """A field of a model, with what it stands for where it is not set."""
    return getattr(model, _RESOLVED.get(name, name))


def essence(model: ModelConfig) -> dict[str, Any]:
    """What a model computes, with defaults filled in and without what has no effect."""
    facts = {name: value_of(model, name) for name in _ALWAYS}
    if model.has_transform:
        facts["use_bias"] = model.use_bias
    if model.head == "pooled":
        facts["classifier_pooling"] = model.classifier_pooling
    if model.architecture == "encoder_decoder":
        facts["num_encoder_layers"] = model.encoder_layers
    if model.position == "learned":
        facts["max_positions"] = model.max_positions
    if model.position == "relative":
        facts["relative_buckets"] = model.relative_buckets
        facts["relative_max_distance"] = model.relative_max_distance
    if model.position == "rope":
        facts["rope_theta"] = model.rope_theta
        facts["rope_factor"] = model.rope_factor
        if model.rope_factor != 1:
            facts["rope_original_positions"] = model.rope_original_positions
    local = [i for i in range(model.num_layers) if model.is_local(i)]
    facts["global_every"] = f"layers {local} are local" if local else "all layers are global"
    if local:
        facts["window"] = model.window
        facts["rope_local_theta"] = model.rope_local_theta or model.rope_theta
    return facts
