"""Every knob of lmjax, its default and its check, in one place.

A config file is a small Python file whose `get_config()` returns an `ml_collections.ConfigDict`
with the fields it cares about; `fields.from_dict` lays them over the defaults below and checks all.
All models are frozen and hold only scalars, tuples and other frozen models, so a `Config` hashes
and can be a static argument.

The network's shape has a file of its own, `model_config.py`; `section.py` says what fixed and free
fields are.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pydantic

from lmjax.model_config import ModelConfig
from lmjax.section import Section, fixed, free

Scalar = bool | int | float | str | None
Kernel = Literal["xla", "blockwise", "cudnn", "cudnn_offsets", "splash", "flash"]  # of attention


def _named(value: Any) -> Any:
    """'name=value,...', as on a command line -> pairs."""
    if not isinstance(value, str):
        return value
    pairs = tuple(tuple(x.strip() for x in part.split("=")) for part in value.split(","))
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError("not pairs of names; write name=value,name=value")
    return pairs


Pairs = Annotated[tuple[tuple[str, str], ...], pydantic.BeforeValidator(_named)]


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
    fields: Pairs = fixed(
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
    attention: Literal["auto", Kernel] = free(
        "auto",
        "kernel: plain products (xla), the same a tile at a time (blockwise), cuDNN's (GPU; "
        "cudnn_offsets: packed rows without a mask, from Hopper on), Pallas's (TPU; flash has "
        "biases); 'auto': the fused one of the device, on a CPU blockwise; plain products for what "
        "it cannot do",
    )
    loss_chunk: int | Literal["auto"] | None = free(
        "auto",
        "positions of a row whose logits are made at a time; None: all; 'auto': all, unless they "
        "and their gradient would take over a tenth of the memory; on a CPU as caches have it",
    )
    prng: Literal["threefry2x32", "rbg"] = fixed(
        "threefry2x32",
        "random bits of dropout; rbg is faster on GPUs and TPUs, and other on another mesh",
    )
    xla_options: Pairs = free(
        (),
        "options that XLA compiles the step with, pairs (name, value), or 'name=value,...'; ours "
        "are in lmjax/train/xla_options.py",
    )
    remat: Literal["none", "dots", "full"] = free(
        "none", "what the backward pass recomputes: nothing, all but matmuls, whole blocks"
    )
    unroll_layers: bool | Literal["auto"] = free(
        "auto", "unroll the scan over layers; 'auto': on a GPU, up to 24 layers, without remat"
    )


class MeshConfig(Section):
    """How the devices are laid out: a mesh data x fsdp x tensor.

    Sizes left out are 1, where the preset says nothing else.
    """

    preset: Literal["data", "fsdp", "tensor", "fsdp_tensor_sequence", "hybrid"] = free(
        "data",
        "data, fsdp, tensor: the axis that takes all devices which the sizes below leave; "
        "fsdp_tensor_sequence: fsdp does, tensor is 2, and between the blocks tensor splits the "
        "positions of a row; hybrid: data is the number of TPU slices or else of hosts, fsdp the "
        "devices of each",
    )
    data: int | None = free(
        None,
        "parts that only the rows of the batch are split into; under hybrid as many as slices or "
        "hosts",
        gt=0,
    )
    fsdp: int | None = free(
        None, "parts that rows, parameters and optimizer state are split into", gt=0
    )
    tensor: int | None = free(
        None,
        "parts that heads, inner MLP width and vocabulary are split into; 2 of several devices "
        "under fsdp_tensor_sequence",
        gt=0,
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
    num_samples: int = free(
        4, "held-out texts that go to samples.jsonl with what the model does with them", ge=0
    )


class LogConfig(Section):
    """Reporting."""

    every: int = free(10, "steps between rows of metrics.jsonl", gt=0)
    ledger: bool = free(False, "write ledger.jsonl: for every step a hash of the rows it saw")
    wandb: str | None = free(
        None,
        "PROJECT or ENTITY/PROJECT of Weights & Biases that gets the same numbers and samples "
        "(pip install 'lmjax[wandb]'); None: none",
        pattern=r"^[^/\s]+(/[^/\s]+)?$",
    )


class WatchdogConfig(Section):
    """Seconds after which a run that hangs is ended; None: never."""

    restore: float | None = free(3600.0, "reading the checkpoint it goes on from", gt=0)
    compile: float | None = free(3600.0, "compiling the first step", gt=0)
    data: float | None = free(1800.0, "waiting for a batch", gt=0)
    step: float | None = free(1800.0, "a step, or one of its micro-batches", gt=0)
    evaluation: float | None = free(1800.0, "a batch of an evaluation", gt=0)
    save: float | None = free(3600.0, "a save that the run has to wait for", gt=0)
    host: float | None = free(60.0, "another host that shows no sign of life", gt=0)


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
        if isinstance(train.loss_chunk, int) and train.loss_chunk < 1:
            raise ValueError(
                f"train.loss_chunk={train.loss_chunk} is no number of positions; choose one above "
                "0, None or 'auto'"
            )
        if schedule.decay_steps is not None and schedule.warmup_steps > schedule.decay_steps:
            raise ValueError(
                f"schedule.warmup_steps={schedule.warmup_steps} is beyond schedule.decay_steps="
                f"{schedule.decay_steps}; shorten the warm-up or lengthen the schedule"
            )
        return self
