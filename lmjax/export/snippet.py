"""How an exported model is loaded and used: Python for its stock class."""

from __future__ import annotations

from collections.abc import Mapping

_HEAD = """\
import torch
from transformers import {classes}

model = {stock_class}.from_pretrained("{name}").eval()
"""

# architecture -> (with the tokenizer, with ids alone)
_USE = {
    "encoder": (
        """\
inputs = tokenizer(f"The weather is {tokenizer.mask_token} today.", return_tensors="pt")
with torch.no_grad():
    output = model(**inputs, output_hidden_states=True)
masked = inputs["input_ids"] == tokenizer.mask_token_id
print(tokenizer.convert_ids_to_tokens(output.logits[masked].topk(5).indices[0]))  # fill the mask
features = output.hidden_states[-1]  # [rows, tokens, width], for a head of your own
""",
        """\
input_ids = torch.tensor([{ids}])
with torch.no_grad():
    output = model(input_ids, output_hidden_states=True)
print(output.logits[0].topk(5).indices)  # the likeliest ids at each place
features = output.hidden_states[-1]  # [rows, tokens, width], for a head of your own
""",
    ),
    "decoder": (
        """\
inputs = tokenizer("The weather is", return_tensors="pt")
with torch.no_grad():
    output = model.generate(**inputs, max_new_tokens=20, do_sample=True)
    loss = model(**inputs, labels=inputs["input_ids"]).loss  # nats per token: a score
print(tokenizer.decode(output[0]))
""",
        """\
input_ids = torch.tensor([{ids}])
with torch.no_grad():
    output = model.generate(input_ids, max_new_tokens=20, do_sample=True)
    loss = model(input_ids, labels=input_ids).loss  # nats per token: a score
print(output[0])
""",
    ),
    "encoder_decoder": (
        """\
inputs = tokenizer("The weather is fine today.", return_tensors="pt")
labels = tokenizer("It is fine.", return_tensors="pt")["input_ids"]
model.train()
model(**inputs, labels=labels).loss.backward()  # fine-tuning to text-to-text
""",
        """\
input_ids, labels = torch.tensor([{ids}]), torch.tensor([{ids}])
model.train()
model(input_ids, labels=labels).loss.backward()  # fine-tuning to text-to-text
""",
    ),
}


# Filling spans, where lmjax has trained that: sentinels have names, have none, there are only ids.
_SPANS = (
    """\
inputs = tokenizer("It is <extra_id_0> today.", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))  # fill the span

""",
    """\
sentinel = model.config.vocab_size - 1  # of the first hidden span; that of the next is one less
before, after = (tokenizer(t, add_special_tokens=False).input_ids for t in ("It is", "today."))
input_ids = torch.tensor([[*before, sentinel, *after, tokenizer.eos_token_id]])
print(tokenizer.decode(model.generate(input_ids, max_new_tokens=20)[0]))  # fill the span

""",
    """\
sentinel = model.config.vocab_size - 1  # of the first hidden span; that of the next is one less
input_ids = torch.tensor([[7, sentinel, 8, {eos}]])
print(model.generate(input_ids, max_new_tokens=20)[0])  # fill the span

""",
)


def snippet(
    architecture: str,
    stock_class: str,
    name: str,
    ids: Mapping[str, int | None],
    *,
    has_tokenizer: bool,
    names_sentinels: bool,
    fills_spans: bool,
) -> str:
    """Code that loads and uses the model.

    Args:
      architecture: of its config.
      stock_class: of transformers.
      name: what `from_pretrained` gets.
      ids: special ids, by name.
      has_tokenizer: whether its files are in the folder.
      names_sentinels: whether text can spell <extra_id_0> to it.
      fills_spans: whether it was trained by span corruption here.
    """
    spans = _SPANS[0 if names_sentinels else 1 if has_tokenizer else 2]
    text = spans * fills_spans + _USE[architecture][0 if has_tokenizer else 1]
    classes = f"AutoTokenizer, {stock_class}" if has_tokenizer else stock_class
    head = _HEAD.format(classes=classes, stock_class=stock_class, name=name)
    if has_tokenizer:
        return f'{head}tokenizer = AutoTokenizer.from_pretrained("{name}")\n\n{text}'
    return f"{head}\n{text.format(ids=_example(architecture, ids), eos=ids.get('eos'))}"


def _example(architecture: str, ids: Mapping[str, int | None]) -> list[int]:
    """A few ids, framed as the model is used to; words are those from 7 on, whatever they mean."""
    framed = {
        "encoder": [ids.get("cls"), 7, ids.get("mask"), 8, ids.get("sep")],
        "decoder": [ids.get("bos"), 7, 8],
        "encoder_decoder": [7, 8, 9, ids.get("eos")],
    }
    return [token for token in framed[architecture] if token is not None]
