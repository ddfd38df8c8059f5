"""How an exported model is loaded and used: Python for its stock class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lmjax.objectives.description import MASK, Frame, Prompt

_IDS = "IDS"  # in the code: where an example of them goes
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
input_ids = torch.tensor([IDS])
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
input_ids = torch.tensor([IDS])
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
input_ids, labels = torch.tensor([IDS]), torch.tensor([IDS])
model.train()
model(input_ids, labels=labels).loss.backward()  # fine-tuning to text-to-text
""",
    ),
}

# What an encoder was fine-tuned for -> code; writing models are used alike whatever they write.
_TASKS = {
    "text-classification": """\
inputs = tokenizer("It was a pleasure.", return_tensors="pt")
with torch.no_grad():
    probabilities = model(**inputs).logits[0].softmax(-1)
print({model.config.id2label[i]: p for i, p in enumerate(probabilities.tolist())})
""",
    "token-classification": """\
inputs = tokenizer("Anna lives in Oslo.", return_tensors="pt")
with torch.no_grad():
    tags = model(**inputs).logits[0].argmax(-1).tolist()  # a word's tag is that of its first piece
for piece, tag in zip(tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]), tags):
    print(piece, model.config.id2label[tag])
""",
    "question-answering": """\
inputs = tokenizer("Where does Anna live?", "Anna lives in Oslo.", return_tensors="pt")
with torch.no_grad():
    output = model(**inputs)
start, end = output.start_logits[0].argmax(), output.end_logits[0].argmax()
print(tokenizer.decode(inputs["input_ids"][0, start : end + 1]))
""",
    "text2text-generation": """\
inputs = tokenizer("The weather is fine today.", return_tensors="pt")
with torch.no_grad():
    output = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(output[0], skip_special_tokens=True))
""",
    "text-generation": """\
inputs = tokenizer("The weather is", return_tensors="pt")
with torch.no_grad():
    output = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(output[0], skip_special_tokens=True))
""",
}
_LOGITS = """\
input_ids = torch.tensor([IDS])
with torch.no_grad():
    output = model(input_ids)
"""


def snippet(
    architecture: str,
    stock_class: str,
    name: str,
    ids: Mapping[str, int | None],
    frame: Frame,
    *,
    has_tokenizer: bool,
    prompts: Sequence[Prompt] = (),
    sentinels: Sequence[int] = (),
    names_sentinels: bool = False,
    task: str | None = None,
) -> str:
    """Code that loads and uses the model.

    Args:
      architecture: of its config.
      stock_class: of transformers.
      name: what `from_pretrained` gets.
      ids: special ids, by name.
      frame: names of those around a text of an encoder-decoder.
      has_tokenizer: whether its files are in the folder.
      prompts: what it was trained to answer.
      sentinels: their ids.
      names_sentinels: whether text can spell <extra_id_0> to that tokenizer.
      task: what it was fine-tuned for, in the words of the Hub; None: it was not.
    """
    framed = _Framed(ids, frame, sentinels)
    shown = []
    for prompt in filter(framed.has, prompts):
        if has_tokenizer and (names_sentinels or all(isinstance(p, str) for p in prompt.parts)):
            shown.append(_in_text(prompt, len(sentinels)))
        else:
            shown.append(_in_ids(prompt, framed, has_tokenizer))
    use = _USE[architecture] if task is None else (_TASKS[task], _LOGITS)
    text = "".join(shown) + "\n" * bool(shown) + use[0 if has_tokenizer else 1]
    classes = f"AutoTokenizer, {stock_class}" if has_tokenizer else stock_class
    head = _HEAD.format(classes=classes, stock_class=stock_class, name=name)
    if has_tokenizer:
        return f'{head}tokenizer = AutoTokenizer.from_pretrained("{name}")\n\n{text}'
    return f"{head}\n{text.replace(_IDS, str(_example(architecture, framed)))}"


def _in_text(prompt: Prompt, num_sentinels: int) -> str:
    """The prompt as text that spells its special tokens."""
    parts = []
    for part in prompt.parts:
        if part == MASK:
            part = " {tokenizer.mask_token}"
        elif isinstance(part, int):
            part = f" <extra_id_{part % num_sentinels}>"
        parts.append(part)
    text, f = "".join(parts).strip(), "f" * (MASK in prompt.parts)
    output = "tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0])"
    inputs = f'inputs = tokenizer({f}"{text}", return_tensors="pt")'
    return f"{inputs}\nprint({output})  # {prompt.does}\n"


@dataclass(frozen=True)
class _Framed:
    """Ids as a model is used to them."""

    ids: Mapping[str, int | None]
    frame: Frame
    sentinels: Sequence[int]

    def has(self, prompt: Prompt) -> bool:
        """Whether there are ids for its special tokens."""
        count = len(self.sentinels)
        return all(
            part != MASK or self.ids.get("mask") is not None
            if isinstance(part, str)
            else -count <= part < count
            for part in prompt.parts
        )

    def __call__(self, parts: Iterable[str | int]) -> str:
        """A list of Python: the parts, which are code already, between the special ids."""
        before, behind = ([self.ids.get(name) for name in side] for side in self.frame)
        inside = [*before, *parts, *behind]
        return f"[{', '.join(str(part) for part in inside if part is not None)}]"


def _in_ids(prompt: Prompt, framed: _Framed, has_tokenizer: bool) -> str:
    """The prompt as ids; words are those from 7 on, whatever they mean, or the tokenizer's."""
    parts, word = [], 7
    for part in prompt.parts:
        if part == MASK:
            parts.append(framed.ids.get("mask"))
        elif isinstance(part, int):
            parts.append(framed.sentinels[part])
        elif has_tokenizer:
            parts.append(f'*tokenizer("{part}", add_special_tokens=False).input_ids')
        else:
            parts.append(word)
            word += 1
    output = "model.generate(input_ids, max_new_tokens=20)[0]"
    output = f"tokenizer.decode({output})" if has_tokenizer else output
    does = prompt.does
    if any(isinstance(part, int) and part >= 0 for part in prompt.parts):
        does += f"; sentinels count down from {framed.sentinels[0]}"
    return f"input_ids = torch.tensor([{framed(parts)}])\nprint({output})  # {does}\n"


def _example(architecture: str, framed: _Framed) -> str:
    """A few ids, framed as the model is used to; words as above."""
    ids = framed.ids
    parts = {
        "encoder": [ids.get("cls"), 7, ids.get("mask"), 8, ids.get("sep")],
        "decoder": [ids.get("bos"), 7, 8],
    }.get(architecture)
    if parts is None:
        return framed([7, 8, 9])
    return str([token for token in parts if token is not None])
