"""What tools/generate.py writes with a trained model, transformers writes with its export.

Needs the extra [parity]."""

import json

import pytest
import small_run
import stock_classes
import tool_run

from lmjax import runner
from lmjax.infer.prompts import Prompts
from lmjax.train import trained

pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    # 2026-11: third-party imports warn (torch, transformers on Python 3.11).
    pytest.mark.filterwarnings("ignore"),
]

COUNT = 64
PROMPTS = {
    "gpt2": ["Call me Ishmael. Some years ago", "It was the", "", "And God said, Let there be"],
    "t5": ["The <mask> said unto Moses<mask>", "It is a truth <extra_id_0> that a single man."],
    "bart": ["The <mask> said unto Moses.", "It is a truth <mask> that a single man <mask>."],
}


@pytest.mark.parametrize("family", PROMPTS)
@pytest.mark.timeout(600)
def test_greedy_text_is_theirs(family, tmp_path):
    transformers = stock_classes.library()
    import torch

    (tmp_path / "recipe.py").write_text(
        small_run.config(small_run.CORPUS, tmp_path / "cache", family)
    )
    fields = {"train.num_steps": 120, "eval.every": 120, "checkpoint.every": 120}
    request = runner.Request(str(tmp_path / "recipe.py"), str(tmp_path / "run"), fields)
    assert runner.train(request) == 0
    small_run.export(tmp_path / "run", tmp_path / "exported")
    records = [{"prompt": prompt} for prompt in PROMPTS[family]]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)))
    files = f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / 'out.jsonl'}"
    done = tool_run.run("generate", f"--workdir={tmp_path / 'run'}", *files)
    assert done.code == 0, done.err
    mine = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    run = trained.load(str(tmp_path / "run"))
    prompts = Prompts.of(run.config, run.tokenizer, run.begin_id)
    two = family != "gpt2"
    stock = transformers.AutoModelForSeq2SeqLM if two else transformers.AutoModelForCausalLM
    model = stock.from_pretrained(tmp_path / "exported").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    forced = int(run.forced_first_id is not None)
    model.generation_config.forced_eos_token_id = None  # of BART, at the last place
    for record, one in zip(records, mine, strict=True):
        ids = prompts(record).ids.tolist()
        if two:  # and their tokenizer reads the same of the same text
            text = record["prompt"]
            if family == "t5":
                for number in range(text.count("<mask>")):
                    text = text.replace("<mask>", f"<extra_id_{number}>", 1)
            assert tokenizer(text)["input_ids"] == ids
        found = model.generate(
            input_ids=torch.tensor([ids]), max_new_tokens=COUNT + forced, do_sample=False
        )[0, 1 + forced if two else len(ids) :].tolist()
        ended = found[-1] == run.tokenizer.eos_id
        assert one["completion_ids"] == found[: len(found) - ended]
        assert one["finish_reason"] == ("eos" if ended else "length")
        text = tokenizer.decode(found, skip_special_tokens=family != "t5")
        assert one["completion"] == text.removesuffix(tokenizer.eos_token)
