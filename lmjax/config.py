"""Every knob of lmjax, its default and its check, in one place.

A config file is a small Python file whose `get_config()` returns an `ml_collections.ConfigDict`
with the fields it cares about; `fields.from_dict` lays them over the defaults below and checks all.
All models are frozen and hold only scalars, tuples and other frozen models, so a `Config` hashes
and can be a static argument.

Each field is *fixed* or *free*. A fixed field belongs to the recipe: a resumed run refuses to
change it. A free field belongs to the machine or to the reporting (devices, micro-batch, cadences):
a resumed run accepts the change and records it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pydantic


def _field(default: Any, doc: str, *, free: bool, **checks: Any) -> Any:
    return pydantic.Field(default, description=doc, json_schema_extra={"free": free}, **checks)


def fixed(default: Any, doc: str, **checks: Any) -> Any:
    """A field that a resumed run may not change."""
    return _field(default, doc, free=False, **checks)


def free(default: Any, doc: str, **checks: Any) -> Any:
    """A field that a resumed run may change."""
    return _field(default, doc, free=True, **checks)


class Section(pydantic.BaseModel):
    """A frozen group of fields; unknown names and silent type changes are errors."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class ModelConfig(Section):
    """The shape of the network. A family's preset fills it; any field may be overridden."""

    preset: str | None = fixed(None, "name of a published size of the family, e.g. 'small'")
    architecture: Literal["decoder", "encoder", "encoder_decoder"] = fixed(
        "decoder", "causal stack, bidirectional stack, or one of each with cross-attention"
    )
    vocab_size: int | None = fixed(
        None, "rows of the embedding; None: the ids in use, rounded up to 128", gt=0
    )
    hidden_size: int = fixed(256, "width of the residual stream", gt=0)
    num_layers: int = fixed(4, "number of blocks (of the decoder, where there are two)", gt=0)
    num_encoder_layers: int | None = fixed(
        None, "blocks of the encoder of an encoder-decoder; None: num_layers", gt=0
    )
    num_heads: int = fixed(4, "attention heads", gt=0)
    num_kv_heads: int | None = fixed(None, "key/value heads; None: num_heads", gt=0)
    head_dim: int | None = fixed(None, "width of a head; None: hidden_size / num_heads", gt=0)
    scale_attention: bool = fixed(True, "divide attention scores by sqrt(head_dim)")
    mlp_size: int | None = fixed(None, "inner width of the MLP; None: 4 hidden_size", gt=0)
    mlp_gated: bool = fixed(False, "gated MLP: activation(x W) * (x V)")
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = fixed(
        "gelu_tanh", "'gelu' is the exact (erf) form, 'gelu_tanh' its tanh approximation"
    )
    norm: Literal["layernorm", "rmsnorm"] = fixed("layernorm", "kind of normalisation")
    norm_placement: Literal["pre", "post", "post_sublayer"] = fixed(
        "pre",
        "before each sublayer, after each residual sum, or on each sublayer's result; the first "
        "and the last with a final norm",
    )
    norm_epsilon: float = fixed(1e-5, "added to the variance", gt=0)
    embedding_norm: bool = fixed(False, "a norm on the sum of the embeddings")
    first_attention_norm: bool = fixed(
        True, "False: no norm before the first block's attention (ModernBERT)"
    )
    position: Literal["learned", "relative", "rope", "alibi", "none"] = fixed(
        "learned",
        "how positions enter: a table added to the embeddings, a bias of attention by bucketed "
        "distance shared by all layers, rotated queries and keys, a fixed penalty on distance, "
        "or not at all",
    )
    max_positions: int | None = fixed(
        1024,
        "the longest sequence; of a learned position table, with position_offset, the rows",
        gt=0,
    )
    position_offset: int = fixed(
        0, "learned: rows of the table before that of position 0 (RoBERTa, BART: 2)", ge=0
    )
    relative_buckets: int = fixed(32, "distances told apart by a relative bias", ge=4)
    relative_max_distance: int = fixed(
        128, "distance from which on all share a bucket", gt=1, lt=2**31
    )
    rope_theta: float = fixed(10_000.0, "base of the rotations' wavelengths", gt=1)
    rope_factor: float = fixed(
        1.0, "rope: long wavelengths are this much longer, as in Llama 3.1", ge=1
    )
    rope_original_positions: int = fixed(
        8192,
        "rope_factor: the context before it was stretched; says which wavelengths are long",
        gt=0,
        lt=2**31,
    )
    rope_local_theta: float | None = fixed(
        None, "rope: base in layers with a window; None: rope_theta", gt=1
    )
    window: int | None = fixed(
        None,
        "local attention: only keys within half of this on either side; None: all",
        gt=1,
        lt=2**31,
    )
    global_every: int | None = fixed(
        None, "window: every n-th layer from the first on sees all keys; None: none does", gt=0
    )
    qk_norm: Literal["none", "head", "all"] = fixed(
        "none", "a norm on queries and keys: of each head (Qwen 3) or over all of them (OLMo 2)"
    )
    token_types: int = fixed(0, "rows of a token-type table; 0: none", ge=0)
    use_bias: bool = fixed(True, "biases in linear layers and norms")
    attention_bias: bool | None = fixed(None, "the same of attention alone; None: use_bias")
    mlp_bias: bool | None = fixed(None, "the same of the MLP alone; None: use_bias")
    norm_bias: bool | None = fixed(None, "the same of the norms alone; None: use_bias")
    tie_embeddings: bool = fixed(True, "the head shares the embedding's matrix")
    head: Literal["lm", "mlm", "pooled", "token", "span"] = fixed(
        "lm",
        "what is predicted: tokens; tokens, with a dense layer, activation and norm before the "
        "projection and a bias after ('mlm'); a class of the text, or of each token; or first and "
        "last token of a span (these three are set by the objective)",
    )
    num_labels: int | None = fixed(
        None, "classes of a 'pooled' or 'token' head; None: those of objective.labels", gt=0
    )
    classifier_transform: bool = fixed(
        False,
        "heads that predict no tokens keep the layer, activation and norm of 'mlm' (ModernBERT); "
        "False: 'pooled' has a layer with tanh, the others nothing (BERT)",
    )
    encoder_embeddings: bool = fixed(
        False, "an encoder beside a decoder has a matrix of tokens of its own"
    )
    frozen_logits_bias: bool = fixed(
        False, "a bias of the logits that is never trained (BART: zeros, unless imported)"
    )
    scale_logits: bool = fixed(False, "multiply what goes into the projection by hidden_size^-1/2")
    classifier_pooling: Literal["first", "mean"] = fixed(
        "first",
        "'pooled' head: the first token stands for the text, or the mean of all (ModernBERT)",
    )
    dropout: float = fixed(0.0, "rate at embedding, attention and residual sums", ge=0, lt=1)
    init: Literal["normal", "truncated_normal", "fan_in"] = fixed(
        "normal",
        "matrices start at init_std (truncated: at two of it), or at 1 / sqrt(inputs) with only "
        "the embedding at init_std",
    )
    init_std: float = fixed(0.02, "standard deviation of the initialiser", gt=0)
    init_residual_scale: bool = fixed(
        False, "residual output projections start at init_std / sqrt(2 num_layers) (GPT-2)"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.head_dim is None and self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not divisible by num_heads={self.num_heads}; "
                "choose another number of heads or set head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.position == "rope" and self.head_width % 2:
            raise ValueError(
                f"position='rope' turns pairs, and the head's width is {self.head_width}; "
                "set an even head_dim"
            )
        if self.position == "learned" and self.max_positions is None:
            raise ValueError("position='learned' needs max_positions, the rows of its table")
        if self.global_every is not None and self.window is None:
            raise ValueError("global_every tells layers without a window; set window, too")
        if self.frozen_logits_bias and self.head == "mlm":
            raise ValueError("head='mlm' has a bias that is trained: no frozen_logits_bias")
        if self.relative_max_distance <= self.relative_buckets // 2:
            raise ValueError(
                f"relative_max_distance={self.relative_max_distance} is not beyond half of "
                f"relative_buckets={self.relative_buckets}; raise it, or take fewer buckets"
            )
        return self

    @property
    def head_width(self) -> int:
        """Width K of one attention head."""
        return self.head_dim or self.hidden_size // self.num_heads

    def is_local(self, layer: int) -> bool:
        """Whether a layer (counted from 0) attends within the window only."""
        every = self.global_every
        return self.window is not None and (every is None or layer % every > 0)

    @property
    def predicts_tokens(self) -> bool:
        """Whether the head's classes are the ids of the vocabulary."""
        return self.head in ("lm", "mlm")

    @property
    def has_transform(self) -> bool:
        """Whether a dense layer, activation and norm stand in front of the head's projection."""
        return self.head == "mlm" or (not self.predicts_tokens and self.classifier_transform)

    @property
    def has_pooler(self) -> bool:
        """Whether a dense layer with tanh does."""
        return self.head == "pooled" and not self.classifier_transform

    @property
    def num_outputs(self) -> int:
        """Numbers that a classifier gives for each token that it sees."""
        return 2 if self.head == "span" else self.num_labels or 2

    @property
    def has_final_norm(self) -> bool:
        """Whether a norm stands behind each stack."""
        return self.norm_placement != "post"

    @property
    def attention_has_bias(self) -> bool:
        """Whether attention's linear layers have biases."""
        return self.use_bias if self.attention_bias is None else self.attention_bias

    @property
    def mlp_has_bias(self) -> bool:
        """Whether the MLP's linear layers have biases."""
        return self.use_bias if self.mlp_bias is None else self.mlp_bias

    @property
    def norm_has_bias(self) -> bool:
        """Whether norms have a bias; an RMS norm never does."""
        wanted = self.use_bias if self.norm_bias is None else self.norm_bias
        return wanted and self.norm == "layernorm"

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads."""
        return self.num_kv_heads or self.num_heads

    @property
    def encoder_layers(self) -> int:
        """Number of blocks of the encoder of an encoder-decoder."""
        return self.num_encoder_layers or self.num_layers

    @property
    def mlp_width(self) -> int:
        """Inner width of the MLP."""
        return self.mlp_size or 4 * self.hidden_size


Scalar = bool | int | float | str | None


class ObjectiveConfig(Section):
    """What is predicted."""

    name: str = fixed(
        "clm", "a module of lmjax.objectives: clm, mlm (BERT), span_corruption (T5), ..."
    )
    mask_rate: float = fixed(
        0.15,
        "mlm, span_corruption, denoising (BART: 0.3): share of the tokens, or words, to hide",
        gt=0,
        lt=1,
    )
    eval_mask_rate: float | None = fixed(
        None, "mlm: the same in held-out text; None: mask_rate", gt=0, lt=1
    )
    mask_token_share: float = fixed(
        0.8, "mlm: share of the chosen tokens that become the mask token", ge=0, le=1
    )
    random_token_share: float = fixed(
        0.1, "mlm: share of them that become a random token; the rest is kept", ge=0, le=1
    )
    whole_word: bool = fixed(False, "mlm: the pieces of a word are chosen together or not at all")
    mean_span_length: float = fixed(
        3.0,
        "span_corruption, denoising: mean length of the hidden spans, in tokens or words",
        ge=1,
    )
    labels: tuple[str, ...] = fixed(
        (), "classification: names of the classes; (): those of the training examples, in order"
    )
    prefix: str = fixed("", "seq2seq, completion: text put in front of every source or prompt")
    target_length: int = fixed(
        128, "seq2seq: ids of a target; completion: the most that an answer has", gt=1
    )
    truncate: bool = fixed(
        False, "fine-tuning: examples that are too long are cut; False: they are an error"
    )
    begins_with_bos: bool | None = fixed(
        None, "fine-tuning: bos stands in front of texts; None: as for the model of init_from"
    )
    permute_sentences: bool = fixed(True, "denoising: the encoder reads the sentences in any order")
    mixture: tuple[tuple[str, float, tuple[tuple[str, Scalar], ...]], ...] = fixed(
        (), "mixture: its parts, (name, weight, ((field of objective, value), ...)) each"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> ObjectiveConfig:
        if self.mask_token_share + self.random_token_share > 1 + 1e-9:  # 0.9 + 0.1 may exceed 1
            raise ValueError(
                f"objective.mask_token_share={self.mask_token_share} and objective."
                f"random_token_share={self.random_token_share} add up to more than 1; lower one"
            )
        return self


class TokenizerConfig(Section):
    """A tokenizer to use, or how to train one on the run's own text."""

    path: str | None = free(
        None, "folder of a trained tokenizer; None: the stores' own, or one trained on the text"
    )
    vocab_size: int = fixed(32_000, "number of ids, special tokens and bytes included", ge=300)
    model_type: Literal["unigram", "bpe"] = fixed("bpe", "SentencePiece model")
    character_coverage: float = fixed(
        0.9995, "share of characters that get pieces; the rest become bytes", ge=0.98, le=1
    )
    sample_bytes: int = fixed(
        100_000_000, "text the tokenizer is trained on, spread over all files", gt=0
    )


_BUNDLED = "bundled:corpus_small"


class DataConfig(Section):
    """Where the text is and how it becomes rows."""

    path: str = free(
        _BUNDLED, "a prepared store, or raw text: files, globs or folders, comma-separated"
    )
    sources: tuple[tuple[str, str], ...] = free(
        (), "several texts to mix, pairs (name, path), instead of data.path; names stay as they are"
    )
    weights: tuple[Annotated[float, pydantic.Field(gt=0)], ...] | None = fixed(
        None, "what the rows of each source are in proportion to; None: to its tokens"
    )
    temperature: float = fixed(
        1.0, "shares go with weight^(1 / temperature): above 1 it evens them out", gt=0
    )
    eval_path: str | None = free(None, "held-out store or text; None: a part of data.path")
    eval_fraction: float = fixed(0.01, "share of documents held out, by hash", ge=0, lt=1)
    text_key: str = fixed("text", "field (JSONL) or column (Parquet) that holds the text")
    fields: tuple[tuple[str, str], ...] = fixed(
        (),
        "fine-tuning: where fields of the examples have other names, pairs (ours, theirs), or "
        "'text=review,label=stars'",
    )
    text_split: Literal["file", "paragraph", "line"] = fixed(
        "file", "what one document is in a .txt file; paragraphs end at blank lines"
    )
    seq_len: int = fixed(1024, "tokens in a row of the batch", gt=1)
    packing: Literal["stream", "document", "pack"] = fixed(
        "stream",
        "what fills a row: the stream of all documents, cut; one document, padded; or as many "
        "whole ones as fit best",
    )
    cross_documents: bool | None = fixed(
        None,
        "stream: attention sees all documents of a row; None: as the objective has it (T5's does)",
    )
    num_workers: int = free(0, "processes that make batches; 0: a thread of the main one", ge=0)
    prepare_workers: int | None = free(
        None, "threads that tokenise raw text; None: one per core", gt=0
    )
    cache_dir: str = free("~/.cache/lmjax", "where raw text is kept once tokenised")

    @pydantic.field_validator("fields", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = tuple(tuple(x.strip() for x in part.split("=")) for part in value.split(","))
        if not all(len(pair) == 2 and all(pair) for pair in pairs):
            raise ValueError("not pairs of names; write text=review,label=stars")
        return pairs

    @pydantic.field_validator("sources", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if isinstance(value, tuple) and all(
            isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(x, str) for x in pair)
            for pair in value
        ):
            return value
        raise ValueError("not pairs of a name and a path; write (('en', 'PATH'), ('es', 'PATH'))")

    @pydantic.model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.cross_documents and self.packing != "stream":
            raise ValueError(
                f"data.cross_documents=True, and data.packing={self.packing!r} keeps documents "
                "apart; leave one of them out"
            )
        if not self.sources:
            for name in ("weights", "temperature"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"data.{name}={getattr(self, name)} is for a mixture; name its texts in "
                        "data.sources, or leave it out"
                    )
            return self
        names = [name for name, _ in self.sources]
        if self.path != _BUNDLED:
            raise ValueError(
                f"data.path={self.path!r} and data.sources are two ways to say what to train on; "
                f"leave data.path at its default ({_BUNDLED!r}), or data.sources out"
            )
        if len(names) == 1:
            raise ValueError("data.sources has one text; a mixture takes two, data.path takes one")
        for name in names:
            if not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(
                    f"data.sources has a text called {name!r}, and metrics will be named by it; "
                    "use letters, digits, '_', '-' and '.'"
                )
            if names.count(name) > 1:
                raise ValueError(
                    f"data.sources calls two texts {name!r}; give each a name of its own"
                )
        for name, path in self.sources:
            if not path:
                raise ValueError(f"data.sources says no path for {name!r}; name a store or text")
        if self.weights is not None and len(self.weights) != len(names):
            raise ValueError(
                f"data.weights has {len(self.weights)} numbers for the {len(names)} texts of "
                "data.sources; give one for each, in their order"
            )
        return self

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the texts of a mixture; empty where there is one text."""
        return tuple(name for name, _ in self.sources)

    @property
    def paths(self) -> tuple[str, ...]:
        """What is trained on, text by text."""
        return tuple(path for _, path in self.sources) or (self.path,)


WeightDecay = tuple[tuple[str, float], ...]


class OptimizerConfig(Section):
    """The update rule."""

    name: Literal["adamw", "adamw_rms", "stable_adamw", "adafactor", "lion", "muon"] = fixed(
        "adamw",
        "update rule: AdamW, AdamW scaled by the parameter's RMS (nanoT5), StableAdamW "
        "(ModernBERT), Adafactor as in T5 (without betas and epsilon), Lion, or Muon with AdamW "
        "for what is no matrix inside a layer",
    )
    learning_rate: float = fixed(6e-4, "peak learning rate", gt=0)
    beta1: float = fixed(0.9, "decay of the first moment", ge=0, lt=1)
    beta2: float = fixed(0.95, "decay of the second moment", ge=0, lt=1)
    epsilon: float = fixed(1e-8, "added to the root of the second moment", gt=0)
    bias_correction: bool = fixed(
        True, "AdamW and its kin: correct the moments for their start at zero"
    )
    momentum: float = fixed(0.95, "muon: decay of the momentum of matrices", ge=0, lt=1)
    weight_decay: float | WeightDecay = fixed(
        0.1,
        "decoupled decay; a number spares biases, norm scales and positions; "
        "or ordered (regex, decay) pairs, the first match wins",
    )
    clip_norm: float | None = fixed(1.0, "largest global norm of the gradient; None: any", gt=0)


class ScheduleConfig(Section):
    """Learning rate as a multiple of the peak; every schedule starts with a linear warm-up."""

    name: Literal["linear", "cosine", "rsqrt", "constant", "wsd"] = fixed("cosine", "shape")
    warmup_steps: int = fixed(0, "steps from 0 to the peak", ge=0)
    hold_steps: int | None = fixed(
        None, "rsqrt: the peak is held until this step; None: warmup_steps", gt=0
    )
    decay_steps: int | None = fixed(
        None, "step at which the schedule ends; None: train.num_steps of the first start", gt=0
    )
    final_fraction: float = fixed(0.1, "last rate as a share of the peak", ge=0, le=1)
    cooldown_fraction: float = fixed(
        0.2, "wsd: share of decay_steps in the final 1-sqrt decay", gt=0, le=1
    )


class TrainConfig(Section):
    """The run."""

    num_steps: int = free(1000, "optimizer steps in all", gt=0)
    global_batch_size: int = fixed(64, "rows of one step over all devices", gt=0)
    micro_batch_size: int | Literal["auto"] = free(
        "auto", "rows computed at a time over all devices; 'auto': what memory allows"
    )
    seed: int = fixed(0, "seed of initialisation, sample order and dropout", ge=0, lt=2**32)
    dtype: Literal["auto", "float32", "bfloat16"] = free(
        "auto", "compute type; 'auto': bfloat16 where the chip has it, else float32"
    )
    init_from: str | None = fixed(
        None, "workdir whose newest weights the run starts from; None: random ones"
    )
    init_weights: bool = fixed(
        True, "init_from: take its weights; False: its architecture and tokenizer alone"
    )
    init_optimizer: bool = fixed(False, "init_from: take its optimizer's moments, too")
    skip_spikes: bool = fixed(
        False,
        "leave out steps whose loss or gradient norm is 6 standard deviations above the last 128",
    )
    z_loss: float = fixed(0.0, "weight of log(Z)^2, keeps logits small (PaLM: 1e-4)", ge=0)
    remat: Literal["none", "dots", "full"] = free(
        "none", "what the backward pass recomputes: nothing, all but matmuls, whole blocks"
    )
    unroll_layers: bool | Literal["auto"] = free(
        "auto", "unroll the scan over layers; 'auto': on a GPU, up to 24 layers, without remat"
    )


class MeshConfig(Section):
    """How the devices are laid out: a mesh data x fsdp x tensor; sizes left out are 1."""

    preset: Literal["data", "fsdp", "tensor"] = free(
        "data", "the axis that takes all devices which the sizes below leave"
    )
    data: int | None = free(None, "parts that only the rows of the batch are split into", gt=0)
    fsdp: int | None = free(
        None, "parts that rows, parameters and optimizer state are split into", gt=0
    )
    tensor: int | None = free(
        None, "parts that heads, inner MLP width and vocabulary are split into", gt=0
    )


class CheckpointConfig(Section):
    """When the state is saved and which saves are kept."""

    every: int = free(500, "steps between saves; the last step is always saved", gt=0)
    keep: int = free(2, "newest checkpoints kept", gt=0)
    keep_period: int | None = free(None, "steps whose multiples are kept for ever", gt=0)


class EvalConfig(Section):
    """Held-out evaluation."""

    every: int = free(500, "steps between evaluations; the last step is always evaluated", gt=0)
    num_batches: int | None = free(
        16, "global batches per evaluation; None: all held-out text", gt=0
    )


class LogConfig(Section):
    """Reporting."""

    every: int = free(10, "steps between rows of metrics.jsonl", gt=0)
    ledger: bool = free(False, "write ledger.jsonl: for every step a hash of the rows it saw")


class WatchdogConfig(Section):
    """Seconds after which a run that hangs is ended; None: never."""

    restore: float | None = free(3600.0, "reading the checkpoint it goes on from", gt=0)
    compile: float | None = free(3600.0, "compiling the first step", gt=0)
    data: float | None = free(1800.0, "waiting for a batch", gt=0)
    step: float | None = free(1800.0, "a step, or one of its micro-batches", gt=0)
    evaluation: float | None = free(1800.0, "a batch of an evaluation", gt=0)
    save: float | None = free(3600.0, "a save that the run has to wait for", gt=0)


class Config(Section):
    """A whole run."""

    family: str = fixed("gpt2", "model family, a module of lmjax.families")
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval: EvalConfig = EvalConfig()
    log: LogConfig = LogConfig()
    watchdog: WatchdogConfig = WatchdogConfig()

    @pydantic.model_validator(mode="after")
    def _check(self) -> Config:
        model, train, schedule = self.model, self.train, self.schedule
        if model.position == "learned" and self.data.seq_len > model.max_positions:
            raise ValueError(
                f"data.seq_len={self.data.seq_len} is longer than model.max_positions="
                f"{model.max_positions}; shorten the rows or enlarge the position table"
            )
        micro = train.micro_batch_size
        if micro != "auto" and (micro < 1 or train.global_batch_size % micro):
            raise ValueError(
                f"train.micro_batch_size={micro} does not divide train.global_batch_size="
                f"{train.global_batch_size}; choose a divisor or 'auto'"
            )
        if schedule.decay_steps is not None and schedule.warmup_steps > schedule.decay_steps:
            raise ValueError(
                f"schedule.warmup_steps={schedule.warmup_steps} is beyond schedule.decay_steps="
                f"{schedule.decay_steps}; shorten the warm-up or lengthen the schedule"
            )
        return self
