"""From a workdir and prompts to text, printed or as JSON lines; what goes wrong on the way."""

import json

import numpy as np
import pytest
import tool_run
from random_run import make_run, make_tokenizer

from lmjax.data.tokenizer import IdsTokenizer
from lmjax.infer import jsonl


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """Where workdirs of the three variants are, and lines for them."""
    root = tmp_path_factory.mktemp("generate")
    tokenizer = make_tokenizer(root / "tok")
    for family, objective in (("gpt2", "clm"), ("t5", "span_corruption"), ("bert", "mlm")):
        make_run(root / family, family, objective, tokenizer, (2, 3))
    make_run(root / "ids", "gpt2", "clm", IdsTokenizer(640, {"eos": 1}), (1,))
    return root


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def generate(at, name, *flags):
    return tool_run.run("generate", f"--workdir={at / name}", *flags)


def test_lines_come_back_completed(at, tmp_path, monkeypatch):
    given = [{"prompt": "Call me"}, {"prompt_ids": [7, 8, 9], "id": "a"}, {"prompt": ""}]
    given += [{"prompt": f"{n} whales"} for n in range(3)]
    text = "\n\n".join(map(json.dumps, given))
    (tmp_path / "in.jsonl").write_text(text)
    how = [f"--input={tmp_path / 'in.jsonl'}", "--max_new_tokens=5", "--temperature=1.5"]
    how += ["--num_samples=2", "--seed=3", "--top_k=300"]
    done = generate(at, "gpt2", *how, f"--output={tmp_path / 'out.jsonl'}")
    assert (done.code, done.err) == (0, "")
    assert "gpt2 at step 3" in done.out
    found = lines(tmp_path / "out.jsonl")
    for record, one in zip([r for r in given for _ in range(2)], found, strict=True):
        assert one.items() >= record.items()
        assert one["num_tokens"] == len(one["completion_ids"]) <= 5
        assert one["finish_reason"] == ("length" if one["num_tokens"] == 5 else "eos")
        assert all(5 <= token < 400 for token in one["completion_ids"])
        assert isinstance(one["completion"], str)
    assert [one["sample"] for one in found] == [0, 1] * 6
    assert found[0]["completion_ids"] != found[1]["completion_ids"]
    tokens = sum(one["num_tokens"] for one in found)
    assert f"out.jsonl: 6 prompts, {tokens} tokens, " in done.out
    # Neither chunks nor batches change what is drawn.
    monkeypatch.setattr(jsonl, "_CHUNK_LINES", 2)
    how += ["--batch_size=4", "--config.mesh.preset=fsdp"]
    again = generate(at, "gpt2", *how, f"--output={tmp_path / 'again.jsonl'}")
    assert again.code == 0, again.err
    assert lines(tmp_path / "again.jsonl") == found


def test_a_prompt_is_answered_on_the_screen(at, tmp_path):
    done = generate(at, "t5", "--prompt=The <mask> sat on <mask>.", "--max_new_tokens=4")
    assert (done.code, done.err) == (0, "")
    said, _, filled, count = done.out.splitlines()
    assert said.endswith("t5 at step 3")
    assert filled.startswith("filled: The")
    assert count == "(4 tokens, length)"
    flags = "--prompt=The whale", "--max_new_tokens=3", "--step=2"
    done = generate(at, "gpt2", *flags)
    assert done.out.splitlines()[0].endswith("gpt2 at step 2")
    assert done.out.splitlines()[1].startswith("The whale")
    done = generate(at, "gpt2", *flags, f"--output={tmp_path / 'one.jsonl'}")
    (one,) = lines(tmp_path / "one.jsonl")
    assert (one["prompt"], one["finish_reason"]) == ("The whale", "length")


def test_a_stop_string_is_not_written(at, tmp_path):
    flags = "--prompt=The whale", "--max_new_tokens=12", f"--output={tmp_path / 'one.jsonl'}"
    generate(at, "gpt2", *flags)
    (free,) = lines(tmp_path / "one.jsonl")
    stop = free["completion"][4:6]
    generate(at, "gpt2", *flags, f"--stop={stop}", "--stop=nowhere to be found")
    (one,) = lines(tmp_path / "one.jsonl")
    assert one["completion"] == free["completion"][: free["completion"].index(stop)]
    assert one["finish_reason"] == "stop"
    assert one["completion_ids"] == free["completion_ids"][: one["num_tokens"]]
    assert 0 < one["num_tokens"] < 12


def test_ids_without_a_tokenizer(at, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt_ids": [5, 6]}')
    files = f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / 'out.jsonl'}"
    done = generate(at, "ids", *files, "--max_new_tokens=2")
    assert done.code == 0, done.err
    (one,) = lines(tmp_path / "out.jsonl")
    assert set(one) == {"prompt_ids", "completion_ids", "num_tokens", "finish_reason"}
    assert np.array(one["completion_ids"]).max() < 640
    done = generate(at, "ids", *files, "--stop=a")
    assert "no text to find a stop string in; leave --stop out" in done.err


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("bert", "--prompt=a", "is an encoder, which writes no text; fill masks with tools/fill_"),
        ("t5", "--prompt=", "prompt is empty, and the encoder needs something to read; give it"),
        ("t5", "--prompt=a<extra_id_500>", "sentinel 500, and the model has 128"),
        ("gpt2", "--prompt=a --max_new_tokens=5000", "lower max_new_tokens to 1023"),
        ("gpt2", "--prompt=a --max_new_tokens=0", "max_new_tokens=0 asks for nothing; give 1"),
        ("gpt2", "--prompt=a --stop=", "an empty stop string is everywhere; give text"),
        ("gpt2", "--prompt=a --seed=-1", "seed=-1 is outside [0, 4294967295]; take another"),
        ("ids", "--prompt=a", "imported without its tokenizer"),
    ],
)
def test_what_is_refused(at, name, flags, message):
    done = generate(at, name, *flags.split(" "))
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1
