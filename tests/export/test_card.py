"""The model card says what the run's files say, in metadata that the Hub reads."""

import dataclasses
import json
import re
import subprocess
import sys

import jax
import published
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from small_run import export

from lmjax import config_file, families, runner
from lmjax.config import Config
from lmjax.data import store
from lmjax.export import card, curve, facts, recipe, sections
from lmjax.export.sections import Subject
from lmjax.export.snippet import snippet
from lmjax.objectives.description import MASK, Prompt
from lmjax.train import copied_checkpoints, metrics, workdir

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def subject(run):
    """What the card of the run is made of."""
    with copied_checkpoints.reading(str(run / "checkpoints")) as (checkpoints, step):
        found = facts.gather(str(run), step, checkpoints.meta(step))
    fmt = families.FORMATS["gpt2"][1]
    return Subject(found, fmt, {"bos": 1, "eos": 1}, "float32", None, None)


def changed(subject, *, config=None, **fields):
    """Another subject: some facts or fields of its config are others."""
    run = subject.facts.run
    if config is not None:
        run = dataclasses.replace(run, config=with_fields(run.config, config))
    about = {k: fields.pop(k) for k in list(fields) if k in Subject.__dataclass_fields__}
    found = dataclasses.replace(subject.facts, **{"run": run, **fields})
    return dataclasses.replace(subject, facts=found, **about)


def with_fields(config: Config, fields):
    """Sets dotted fields without a check: what is tested here comes after it."""
    for name, value in fields.items():
        section, field = name.split(".")
        part = getattr(config, section).model_copy(update={field: value})
        config = config.model_copy(update={section: part})
    return config


def last_rows(run):
    return {row["split"]: row for row in metrics.read(run / "metrics.jsonl")}


def test_metadata(exported):
    data = ModelCard.load(exported / "README.md").data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert {"lmjax", "gpt2"} <= set(data["tags"])
    assert not {"license", "language"} & set(data)


def test_numbers_are_those_of_the_rows(run, exported):
    rows, content = last_rows(run), (exported / "README.md").read_text()
    lines = dict(re.findall(r"^\| ([^|]+) \| (.*) \|$", content, re.MULTILINE))
    keys = {"loss": "loss", "bits per byte": "bits_per_byte", "accuracy": "accuracy"}
    keys["the same of a unigram model"] = "unigram_loss"
    for title, key in keys.items():
        values = [float(value) for value in lines[title].split(" | ")]
        assert values == [rows["train"][key], rows["eval"][key]]
    assert lines["row of metrics.jsonl"] == "step 4 | step 4"
    assert lines["tokens seen"].startswith(f"{rows['train']['tokens']:,} ")
    found = ModelCard(content).data.eval_results
    assert [r.metric_value for r in found if r.metric_type == "accuracy"] == [
        rows["eval"]["accuracy"]
    ]
    assert [r.metric_value for r in found if r.metric_type == "loss"] == [rows["eval"]["loss"]]
    manifest = json.loads(next(run.parent.glob("cache/stores/*/manifest.json")).read_bytes())
    for split in ("train", "eval"):
        assert f"{manifest['splits'][split]['num_tokens']:,} tokens" in content
    assert f"{jax.device_count()} x cpu" == lines["hardware"]


def test_no_path_of_this_machine_and_no_code(exported):
    for file in exported.iterdir():
        assert b"secret_place" not in file.read_bytes(), file
        assert file.suffix in (".json", ".md", ".png", ".safetensors", "")
    assert "some\\_text.jsonl" in (exported / "README.md").read_text()


@pytest.mark.parametrize("model_type", published.MODELS)
def test_no_config_asks_for_code(model_type):
    fmt = families.FORMATS[model_type][1]
    assert "auto_map" not in fmt.write_config(
        published.model_of(model_type), published.IDS, "float32"
    )


def test_sums(exported):
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=exported, capture_output=True)
    assert done.returncode == 0
    names = {p.name for p in exported.iterdir()}
    assert {line.split(b":")[0].decode() for line in done.stdout.splitlines()} == names - {
        "SHA256SUMS"
    }


def test_the_curve(exported, subject, tmp_path, monkeypatch):
    assert (exported / curve.FILE).read_bytes().startswith(PNG)
    assert f"]({curve.FILE})" in (exported / "README.md").read_text()
    one = [row for row in subject.facts.rows if row["split"] == "train"][:1]
    assert curve.draw(one, tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (tmp_path / "without").mkdir()
    lacks = card.write(changed(subject, license="mit"), str(tmp_path / "without"))
    assert lacks == ["the loss curve (pip install 'lmjax[card]')"]
    assert curve.FILE not in (tmp_path / "without" / "README.md").read_text()


def test_the_recipe_is_the_runs_own(run, exported):
    text = str(run.parent / "some_text.jsonl")
    raw = config_file.load(str(exported / recipe.FILE))
    again = config_file.make(raw, {"data.path": text})
    mine = workdir.read(run).config
    assert with_fields(again, {"data.cache_dir": mine.data.cache_dir}) == mine
    command = "python -m lmjax.main --config=lmjax_config.json --workdir=runs/again "
    assert f"{command}--config.data.path=TEXT_OR_STORE\n" in (exported / "README.md").read_text()


def test_every_path_of_a_config_is_hidden():
    names = {n for n in Config.model_fields["data"].annotation.model_fields if "path" in n}
    assert {f"data.{name}" for name in names} < set(recipe.PLACES)


def test_names_without_their_folders():
    assert facts.base_name("/home/me, you/runs/mine/") == "mine"
    assert facts.base_names("/home/me/a.txt, gs://bucket/x/*.jsonl") == "a.txt,*.jsonl"
    assert facts.base_names("bundled:corpus_small") == "bundled:corpus_small"


def test_an_import_claims_nothing(tmp_path):
    published.make(tmp_path / "bert", "bert")
    read = published.import_folder(tmp_path / "bert", tmp_path / "run")
    said = export(tmp_path / "run", tmp_path / "out", license="apache-2.0")
    assert "lacks" not in said
    content = (tmp_path / "out" / "README.md").read_text()
    assert f"type `bert` with the config.json of SHA-256 `{read.config_sha256}`" in content
    assert "was not tuned" not in content
    assert "has not trained it and has measured nothing" in content
    assert not re.search("## (Results|Training|Data|Limits|Reproduce)", content)
    data = ModelCard(content).data
    assert (data.license, data.pipeline_tag) == ("apache-2.0", "fill-mask")
    assert data.eval_results is None
    assert not (tmp_path / "out" / recipe.FILE).exists()


def test_where_training_began(subject):
    source = {"file": "config.json", "sha256": "ab12", "model_type": "gpt2"}
    run = dataclasses.replace(subject.facts.run, source=source)
    assert "went on from a model of type `gpt2`" in sections.head(changed(subject, run=run))
    config = {"train.init_from": "/home/me/runs/first"}
    head = sections.head(changed(subject, config=config))
    assert "began with the weights of another run, first." in head


def test_what_is_not_known_is_named(subject):
    meta = {k: v for k, v in subject.facts.meta.items() if k != "hardware"}
    content = str(
        card.make(changed(subject, meta=meta, train_text=None, eval_text=None, rows=[], step=9))
    )
    for words in ("Nothing was measured.", "| hardware | not recorded |", "its size is left out"):
        assert words in content
    assert "model-index" not in content
    older = sections.results(changed(subject, step=9))
    assert "The held-out row is older than this checkpoint." in older
    rounded = sections.results(changed(subject, dtype="bfloat16"))
    assert "rounded to bfloat16" in rounded


def test_a_ledger_is_shown_as_counts(tmp_path, subject):
    (tmp_path / store.LEDGER).write_text('{"kept": 5, "dropped": {"short": 2}, "name": "x"}')
    for path in (tmp_path, tmp_path / "text.jsonl"):
        of_run = changed(subject, ledgers={"": facts._ledger(str(path))})
        assert of_run.facts.ledger == {"kept": 5, "dropped.short": 2}
        assert "| dropped.short | 2 |" in sections.data(of_run)


HOSTILE = [
    "'single' and \"double\"",
    "a: b, [c], {d}: &anchor *alias !tag %directive",
    "---",
    "\n---\nlicense: mit\n---\n",
    "line\nbreak\r\nand\ttab",
    "# title",
    "| a | table |",
    "<script>alert(1)</script>",
    "<!-- comment",
    "![image](https://example.com/a.png)",
    "[link](javascript:alert(1))",
    "`code` ``` fence",
    "😀 🇩🇪 👩‍👩‍👧",
    "\x00\x07\x1b[31m\x85\u2028\ufeff\ud800",
    "x" * 10_000,
    "null",
    "1e5",
    "@someone #1 ~~struck~~ **bold** $x$",
    "\\",
    " ",
]


def structure(markdown):
    """Headings by level, links, pictures, blocks of code and of HTML; not what is in tables."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    inline = [part for token in tokens for part in token.children or []]
    blocks = [(t.type, t.tag) for t in tokens if t.type in ("heading_open", "html_block", "fence")]
    wanted = ("link_open", "image", "html_inline", "em_open", "strong_open", "s_open")
    inner = [(t.type, str(t.attrs)) for t in inline if t.type in wanted]
    columns = [
        sum(t.type == "th_open" for t in tokens),
        sum(t.type == "table_open" for t in tokens),
    ]
    return blocks, inner, columns


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_free_text_is_only_shown(text, subject):
    fields = {"data.path": text, "optimizer.weight_decay": ((text, 0.1),), "data.eval_path": text}
    run = dataclasses.replace(subject.facts.run, source={"file": text, "sha256": text})
    found = dataclasses.replace(subject.facts, run=run, name=text, ledgers={"": {text: 1}})
    hostile = changed(
        dataclasses.replace(subject, facts=found, license=text),
        config=fields | {"train.init_from": text},
        tokenizer={"model_type": text, "vocab_size": 1},
    )
    content = str(card.make(hostile))
    content.encode()
    made = ModelCard(content)
    usual = ModelCard(str(card.make(changed(subject, ledgers={"": {"kept": 1}}))))
    assert set(made.data.to_dict()) - {"license"} == set(usual.data.to_dict())
    assert made.data.license is None or isinstance(made.data.license, str)
    assert made.data.tags == usual.data.tags
    assert made.data.to_dict()["model-index"][0]["results"]
    assert structure(made.text) == structure(usual.text)
    assert len(content) < 20_000
    assert runner.workdir.content(recipe.public(hostile.facts.run))


@pytest.mark.parametrize(
    ("has_tokenizer", "names_sentinels"), [(True, True), (True, False), (False, False)]
)
@pytest.mark.parametrize("prompts", [(), (Prompt(("It is", 0, MASK, " today.", -1), "ask"),)])
@pytest.mark.parametrize("architecture", card.PIPELINES)
def test_snippets_are_python(architecture, prompts, has_tokenizer, names_sentinels):
    ids = {"cls": 3, "mask": None, "sep": 1, "bos": 1, "eos": 1}
    text = snippet(
        architecture,
        "SomeClass",
        "me/mine",
        ids,
        ((), ("eos",)),
        has_tokenizer=has_tokenizer,
        prompts=prompts,
        sentinels=(99, 98),
        names_sentinels=names_sentinels,
    )
    compile(text, "snippet", "exec")
    assert "# ask" not in text  # without an id for the mask
    assert 'from_pretrained("me/mine")' in text
