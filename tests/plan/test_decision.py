"""The answer to a question whose ladders are trained already: its figures, words, page, picture."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from test_ladder import TEXT, finished

from lmjax import config_file
from lmjax.plan import decision, decision_page, ladder, picture, plan, scaling, topology
from lmjax.plan import decision_words as words
from lmjax.plan.ladder import Size
from lmjax.plan.variants import VARIANTS
from lmjax.train import console


def loss(params, tokens):
    return 2.5 + 1.2 * (params / 3e5) ** -0.3 + 1.1 * (tokens / 1.4e6) ** -0.3


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """Answers, for variants, hours and a topology."""
    monkeypatch.setattr(ladder, "prepare", lambda *_: TEXT)
    noise = np.random.default_rng(0)

    def answer(names, hours, where, task=None):
        for name in names:
            for run in ladder.rungs(VARIANTS[name], TEXT, tmp_path / "runs", Size()):
                finished(run, loss(run.num_params, run.tokens) + 0.01 * noise.standard_normal())
        where = topology.make(where, analytic=True)
        about = ("my_text", hours, where, plan.Asked(), task, names, tmp_path)
        return decision.make(decision.Question(*about), lambda line: None)

    return answer


def test_a_large_budget_and_little_text(answered, capsys):
    found = answered(("encoder",), 24, "h100:8", "classify")
    json.dumps(found, allow_nan=False)
    one = found["variants"]["encoder"]
    assert not one["choice"]["train"]
    said = dict(words.rows(found, "encoder"))
    assert said["recommended"].startswith("do not train this encoder from scratch: continue from")
    assert "less than 25 %" in said["decided by"]
    assert "--task=classify asks for it" in said["variant"]
    low, high = sorted(one["raw_text_bytes"]["free"])
    assert low == pytest.approx(one["choice"]["free"]["tokens"] * TEXT.bytes_per_token / 0.03)
    assert high == pytest.approx(3 * low, rel=1e-6)
    assert "checked at 2.3 times" in said["how sure"]
    commands = words.commands(found, "encoder")
    assert commands[0].startswith("hf download answerdotai/ModernBERT-")
    assert commands[1].startswith("python tools/import_hf.py --input=downloaded/modernbert-")
    decision_page.show(found, console.make_console())
    assert "hf download" in capsys.readouterr().out
    html = decision_page.render(found).decode()
    assert html.count("<figure") == 2
    assert "277,056" in html


def test_a_budget_that_the_text_is_enough_for(answered, tmp_path):
    found = answered(("decoder",), 0.0004, "v5e:1x1")
    one = found["variants"]["decoder"]
    run = one["choice"]["run"]
    assert one["choice"]["train"]
    said = dict(words.rows(found, "decoder"))
    assert said["recommended"].startswith(f"train a decoder from scratch: {run['shape']}, ")
    assert "with enough text" not in said
    assert "it is the better start" in said["continue from"]
    file = tmp_path / "decoder.py"
    assert words.commands(found, "decoder") == [
        f"python -m lmjax.main --config={file} --workdir=runs/decoder"
    ]
    config = config_file.make(config_file.load(str(file)), {})
    assert config.data.path == "my_text"
    assert config.model.hidden_size == run["hidden_size"]
    tokens = config.train.num_steps * config.train.global_batch_size * config.data.seq_len
    assert tokens == pytest.approx(run["tokens"], rel=0.01)
    assert one["plan"]["hours"] == pytest.approx(0.0004, rel=0.05)


def test_several_variants_are_not_compared(answered):
    found = answered(("encoder-decoder", "encoder"), 24, "h100:8", "translate")
    assert list(found["variants"]) == ["encoder-decoder", "encoder"]
    assert any("do not compare" in line for line in words.caveats(found))
    html = decision_page.render(found).decode()
    assert html.count("<figure") == 4
    assert "Encoder-decoder: recommendation" in html


def test_a_picture_of_ladders():
    params, tokens = (grid.ravel() for grid in np.meshgrid([6e4, 2e5, 4e5, 9e5], [1e6, 2e6]))
    points = scaling.Points(params, tokens, loss(params, tokens))
    panel = picture.Panel("decoder", points, scaling.fit(points), 2e6, loss(2e6, 2e6))
    root = ElementTree.fromstring(picture.svg([panel, panel]))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    kinds = [each.attrib.get("class") for each in root.iter() if each.tag.endswith("circle")]
    assert (kinds.count("long"), kinds.count("short"), kinds.count("held")) == (8, 8, 2)
    for each in root.iter():
        if each.tag.endswith("circle"):
            assert 0 < float(each.attrib["cx"]) < width
            assert 0 < float(each.attrib["cy"]) < height
    by_size = [e for e in root.iter() if e.attrib.get("class") == "long"][:4]
    heights = [float(each.attrib["cy"]) for each in by_size]
    assert heights == sorted(heights)  # lower losses lie lower
