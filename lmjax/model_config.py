"""The shape of a network: every knob, its default and its check."""

from __future__ import annotations

from typing import Literal

import pydantic

from lmjax.section import Section, fixed


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
    norm_epsilon: float = fixed(1e-5, "added to the variance", gt=0, lt=1)
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
    rope_theta: float = fixed(10_000.0, "base of the rotations' wavelengths", gt=1, lt=1e30)
    rope_factor: float = fixed(
        1.0, "rope: long wavelengths are this much longer, as in Llama 3.1", ge=1, lt=1e30
    )
    rope_original_positions: int = fixed(
        8192,
        "rope_factor: the context before it was stretched; says which wavelengths are long",
        gt=0,
        lt=2**31,
    )
    rope_local_theta: float | None = fixed(
        None, "rope: base in layers with a window; None: rope_theta", gt=1, lt=1e30
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
    init_std: float = fixed(0.02, "standard deviation of the initialiser", gt=0, lt=1000)
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
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads="
                f"{self.num_kv_heads}; choose one that divides it, or leave it out"
            )
        if self.position == "rope" and self.head_width % 2:
            raise ValueError(
                f"position='rope' turns pairs, and the head's width is {self.head_width}; "
                "set an even head_dim"
            )
        if self.position == "learned" and self.max_positions is None:
            raise ValueError(
                "position='learned' has a table of positions; set max_positions, its rows"
            )
        if self.global_every is not None and self.window is None:
            raise ValueError("global_every tells layers without a window; set window, too")
        if self.frozen_logits_bias and self.head == "mlm":
            raise ValueError("head='mlm' has a bias that is trained; leave frozen_logits_bias out")
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
