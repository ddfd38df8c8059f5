"""The other side: models of transformers, made, run, saved and loaded. Imports PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from models import Case
from safetensors.numpy import load_file

from lmjax import families

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def stock_class(model_type: str) -> type:
    """The class that a model type's checkpoints are written for."""
    return getattr(transformers, families.FORMATS[model_type][1].stock_class)


def make(case: Case, seed: int = 0, **config: Any) -> Any:
    """A random model without dropout, all parameters and buffers of weights moved."""
    torch.manual_seed(seed)
    none = dict.fromkeys(_DROPOUTS.get(case.model_type, ()), 0.0)
    given = transformers.AutoConfig.for_model(case.model_type, **(none | case.config | config))
    model = stock_class(case.model_type)(given).eval()
    with torch.no_grad():
        if case.own_head:
            own_head(model)
        moved = [*model.parameters()]
        if case.model_type == "bart":
            moved.append(model.final_logits_bias)
        for tensor in moved:
            tensor.add_(case.spread * torch.randn_like(tensor))
    return model


_BERT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_DROPOUTS = {
    "bert": _BERT,
    "roberta": _BERT,
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "t5": ("dropout_rate",),
    "bart": ("dropout", "attention_dropout", "activation_dropout"),
}


def arguments(case: Case, batch: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A batch as their models take it."""
    given = {"input_ids": batch["inputs"], "attention_mask": batch["segment_ids"]}
    if "enc_inputs" in batch:
        given = {f"decoder_{name}": field for name, field in given.items()}
        given |= {"input_ids": batch["enc_inputs"], "attention_mask": batch["enc_segment_ids"]}
    elif case.model_type not in ("roberta", "bloom"):  # which find positions by themselves
        given["position_ids"] = batch["positions"]
    if "token_types" in batch:
        given["token_type_ids"] = batch["token_types"]
    return {name: torch.tensor(field).long() for name, field in given.items()}


def logits(model: Any, case: Case, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Their logits, [B, T, V]."""
    with torch.no_grad():
        return model(**arguments(case, batch)).logits.float().numpy()


def save(model: Any, folder: Path, **how: Any) -> Path:
    """Saves a model as their users do."""
    model.save_pretrained(folder, **how)
    return folder


def load(folder: Path, model_type: str) -> Any:
    """Loads a folder into the stock class; every tensor has to be there, and none too many."""
    model, info = stock_class(model_type).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder, as they are stored."""
    files = sorted(Path(folder).glob("*.safetensors"))
    return {name: array for file in files for name, array in load_file(file).items()}


def loss(model: Any, case: Case, batch: Mapping[str, np.ndarray]) -> torch.Tensor:
    """Weighted mean of -log p of a batch's targets."""
    logits = model(**arguments(case, batch)).logits
    targets, weights = torch.tensor(batch["targets"]).long(), torch.tensor(batch["weights"])
    if "predict_at" in batch:
        rows = torch.arange(len(logits))[:, None]
        logits = logits[rows, torch.tensor(batch["predict_at"]).long()]
    nats = torch.nn.functional.cross_entropy(logits.mT, targets, reduction="none")
    return (weights * nats).sum() / weights.sum()


def trained(
    model: Any,
    case: Case,
    batches: Sequence[Mapping[str, np.ndarray]],
    *,
    rate: float,
    betas: tuple[float, float],
    decay: float,
) -> list[float]:
    """Losses of AdamW at a constant rate, gradients clipped to a norm of 1."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=betas, eps=1e-8, weight_decay=decay
    )
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        nats = loss(model, case, batch)
        nats.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(nats.item())
    return losses


def count_parameters(config: Mapping[str, Any], tied: bool) -> int:
    """Parameters of a config.json's class, none of them allocated.

    Args:
      config: its content.
      tied: whether the head's matrix is the embedding's; of T5 only the weights say it.
    """
    given = dict(config)
    given = transformers.AutoConfig.for_model(given.pop("model_type"), **given)
    with torch.device("meta"):
        model = stock_class(given.model_type)(given)
        if not tied:
            own_head(model)
    return sum(parameter.numel() for parameter in model.parameters())


def own_head(model: Any) -> None:
    """Makes the head's matrix one of its own, where it is the embedding's."""
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
