"""Small tokenizers in the format of Hugging Face, trained on the bundled text."""

import json
from pathlib import Path

from small_run import CORPUS
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
END = "<|endoftext|>"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def lines(number=400):
    """The first lines of the bundled text that are not blank."""
    with CORPUS.open(encoding="utf-8") as file:
        found = [line for text in file for line in json.loads(text)["text"].split("\n") if line]
    return found[:number]


def wordpiece(folder, vocab_size=600, lowercase=True):
    """BERT's files."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=BERT_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator(lines(), trainer)
    names = zip(("pad", "unk", "cls", "sep", "mask"), BERT_TOKENS, strict=True)
    said = {f"{name}_token": token for name, token in names}
    return write(folder, tokenizer, {"do_lower_case": lowercase, **said})


def byte_level(folder, vocab_size=600, words=None, normalizer=None):
    """GPT-2's files, whose config names no special token; `words`: a regex of its own for them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=words is None
    )
    if words is not None:
        split = pre_tokenizers.Split(Regex(words), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, tokenizer.pre_tokenizer])
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines(), trainer)
    return write(folder, tokenizer, {"model_max_length": 32})


def pieces(folder, vocab_size=640, sentinels=0):
    """What our own tokenizers become, with sentinels of T5 behind the pieces."""
    names = ["<pad>", "</s>", "<unk>", "<s>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*names, *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=60,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.add_special_tokens([f"<extra_id_{i}>" for i in reversed(range(sentinels))])
    said = zip(("pad", "eos", "unk", "bos", "mask"), names, strict=True)
    names = {f"{name}_token": token for name, token in said}
    folder = write(folder, tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast", **names})

    def unmark_bytes(content):
        added = content["added_tokens"]
        content["added_tokens"] = [t for t in added if not t["content"].startswith("<0x")]

    rewrite(folder, unmark_bytes)
    return folder


def write(folder, tokenizer, said):
    """Writes the files; returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def files_of(folder):
    """Content by name."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def rewrite(folder, change):
    """Changes the content of tokenizer.json."""
    file = Path(folder) / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
