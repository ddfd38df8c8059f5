"""The tool on small text: what goes, what stays, and that every document is accounted for."""

import itertools
import json
import os
import random

import pytest

pytest.importorskip("datatrove")
pytest.importorskip("spacy")
pytest.importorskip("py3langid")

import curated

from lmjax.curate import curation, ledger, quality, reading
from lmjax.curate.recipe import Recipe
from lmjax.data import files as files_lib
from lmjax.data import prepare, store, tokenizer_training
from lmjax.errors import UserError
from lmjax.export import facts

PASSAGES = curated.prose(40)
SHORT = "This is a text of a few words only, and all of them are English words."
SPANISH = (
    "La ciudad de la que hablamos tiene una larga historia y muchos de sus habitantes la conocen "
    "bien, porque en las escuelas se les cuenta desde pequeños. El río pasa por el centro, y a sus "
    "orillas están los barrios más antiguos, con calles estrechas y plazas donde los vecinos se "
    "reúnen por la tarde. En verano hace calor y casi nadie sale antes de las siete; en invierno, "
    "en cambio, las noches son largas y frías, y la gente prefiere quedarse en casa. Los mercados "
    "abren temprano, y quien llega tarde ya no encuentra el mejor pescado ni la fruta más fresca."
)
CHINESE = (
    "这座城市有着悠久的历史，许多居民都非常了解它，因为他们从小就在学校里听老师讲述。\n"
    "河流穿过市中心，两岸是最古老的街区，狭窄的街道和广场上，邻居们在傍晚聚会聊天。\n"
    "夏天很热，几乎没有人在七点之前出门；而冬天的夜晚漫长而寒冷，人们更愿意待在家里。\n"
    "市场很早就开门，来晚的人再也找不到最好的鱼和最新鲜的水果，只能明天再来碰碰运气。"
)


def near(passage, rng, share=0.02):
    """A copy with some words of it changed."""
    words = passage.split(" ")
    for at in rng.sample(range(len(words)), max(1, int(share * len(words)))):
        words[at] = f"word{at}"
    return " ".join(words)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Prose, copies of it, things that are no prose, and records that cannot be read."""
    folder, rng = tmp_path_factory.mktemp("curated"), random.Random(0)
    records = [
        {"text": text, "id": f"prose-{i}", "source": "novels", "year": i}
        for i, text in enumerate(PASSAGES)
    ]
    records += [{"text": text, "id": f"exact-{i}"} for i, text in enumerate(PASSAGES[:10])]
    records += [{"text": near(t, rng), "id": f"near-{i}"} for i, t in enumerate(PASSAGES[10:20])]
    records += [
        {"text": "Buy now! " * 100, "id": "spam"},
        {"text": SHORT, "id": "short"},
        {"text": SPANISH, "id": "spanish"},
        {"text": CHINESE, "id": "chinese"},
        {"text": f"{PASSAGES[20]}\nWrite to jane@pemberley.co.uk from 8.8.8.8.", "id": "private"},
        {"text": None, "id": "none"},
        b'{"text": "\xff\xfe", "id": "bytes"}',
        b"{not json",
        {"text": "  ", "id": "blank"},
    ]
    rng.shuffle(records)
    found, out = curated.curate(folder, records)
    return found, out, records


def test_every_document_is_kept_or_dropped_once(whole):
    found, out, records = whole
    assert found["in"]["documents"] == len(records)
    gone = sum(of["documents"] for of in found["dropped"].values())
    assert found["kept"]["documents"] + gone == len(records)
    kept, dropped = (curated.documents(f"{out}/{name}") for name in ("kept", "dropped"))
    assert (len(kept), len(dropped)) == (found["kept"]["documents"], gone)
    names = [document["id"] for document in kept + dropped]
    assert len(set(names)) == len(records)
    for rule, of in found["dropped"].items():
        there = curated.documents(f"{out}/dropped/{rule}")
        assert len(there) == of["documents"]
        assert {document["rule"] for document in there} == {rule}
        assert len(of["excerpts"]) == min(10, len(there))
    amount = found["kept"]
    assert amount["bytes"] == sum(len(document["text"].encode()) for document in kept)


def test_prose_stays_with_its_fields_and_the_rest_goes_by_its_rule(whole):
    found, out, _ = whole
    kept = {document["id"]: document for document in curated.documents(f"{out}/kept")}
    why = {document["id"]: document["rule"] for document in curated.documents(f"{out}/dropped")}
    assert why["spam"].startswith("repetition_")
    assert ledger.step_of(why["short"]) == "quality"
    unreadable = {rule.removeprefix("unreadable_") for rule in why.values() if "unread" in rule}
    assert unreadable == {"no_text", "bad_utf8", "bad_json", "empty"}
    assert {"spanish", "chinese", "private"} <= kept.keys()
    assert kept["prose-30"] == {
        "text": PASSAGES[30],
        "id": "prose-30",
        "source": "novels",
        "year": 30,
    }
    text = kept["private"]["text"]
    assert "jane" not in text
    assert "email@example.com from 192.0.2.1" in text
    assert found["masked"] == 2


def test_copies_go_and_one_of_each_stays(whole):
    found, out, _ = whole
    kept = {document["id"] for document in curated.documents(f"{out}/kept")}
    assert found["dropped"]["exact_duplicate"]["documents"] == 10
    assert found["dropped"]["near_duplicate"]["documents"] >= 9
    for i in range(10):
        assert len({f"prose-{i}", f"exact-{i}"} & kept) == 1


def test_of_a_chain_of_copies_none_goes_that_is_unlike_all_that_stay(tmp_path):
    words = ["".join(letters) for letters in itertools.product("aeiou", "bcdfg", "hijkl", "mnopq")]
    # of Jaccard similarity 0.85 with the next, then 0.71, 0.60, 0.49, ...
    chain = [" ".join(words[20 * i : 20 * i + 240]) for i in range(20)]
    records = [{"text": text, "id": str(i)} for i, text in enumerate(chain)]
    _, out = curated.curate(tmp_path, records, steps=("dedup",))
    stays = [curated.shingles(document["text"]) for document in curated.documents(f"{out}/kept")]
    gone = [curated.shingles(doc["text"]) for doc in curated.documents(f"{out}/dropped")]
    assert len(gone) >= 3
    assert all(max(curated.jaccard(one, other) for other in stays) >= 0.5 for one in gone)
    assert all(curated.jaccard(a, b) < 0.7 for a, b in itertools.combinations(stays, 2))


def test_languages_are_judged_by_what_fits_them(whole):
    found, _, _ = whole
    left_out = found["rules_left_out"]
    assert "en" not in left_out
    assert left_out["es"] == ["gopher: length of words", "c4: sentences and phrases"]
    assert "gopher: words" in left_out["zh"]
    assert found["balance"]["language"]["es"]["after"]["documents"] == 1
    assert {"novels", "text.jsonl"} == found["balance"]["source"].keys()


def test_any_number_of_workers_gives_the_same_bytes(whole, tmp_path):
    found, out, records = whole
    path = curated.write(tmp_path / "text.jsonl", records)
    again = curation.curate([str(path)], str(tmp_path / "out"), Recipe(), workers=2)
    assert curated.sums(tmp_path / "out") == curated.sums(out)
    assert again["kept"] == found["kept"]


def test_a_finished_one_is_left_as_it_is(whole, tmp_path):
    found, out, records = whole
    before = curated.sums(out)
    path = curated.write(tmp_path / "text.jsonl", records)
    assert curation.curate([str(path)], out, Recipe()) == found
    assert curated.sums(out) == before
    with pytest.raises(UserError, match="holds another curation"):
        curation.curate([str(path)], out, Recipe(seed=1))
    assert curated.sums(out) == before


def test_a_full_disk_leaves_nothing_undone(tmp_path, monkeypatch):
    records = [{"text": text, "id": str(i)} for i, text in enumerate(PASSAGES[:6])]
    found, out = curated.curate(tmp_path, records, steps=("language", "dedup"))
    other = tmp_path / "other"
    path = curated.write(tmp_path / "text.jsonl", records)
    recipe = Recipe(steps=("language", "dedup"))
    write_whole, left = curation.cleaning.writing.files_lib.write_whole, [3]

    def full(path, data):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device", str(path))
        write_whole(path, data)

    monkeypatch.setattr(curation.cleaning.writing.files_lib, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        curation.curate([str(path)], str(other), recipe, workers=1)
    assert ledger.read(str(other)) is None
    assert curation.curate([str(path)], str(other), recipe, workers=1)["kept"] == found["kept"]
    assert curated.sums(other) == curated.sums(out)


def test_shards_split_a_file_and_lose_nothing(tmp_path, monkeypatch):
    records = [{"text": f"Text number {i}.", "id": str(i)} for i in range(50)]
    path = curated.write(tmp_path / "text.jsonl", records)
    monkeypatch.setattr(reading, "SHARD_BYTES", 400)
    shards = reading.shards([str(path)])
    assert len(shards) > 3
    found = [record for shard in shards for record in reading.read(shard, "text", "file")]
    assert sorted(record.text for record in found) == sorted(r["text"] for r in records)
    out, _ = curated.curate(tmp_path, records, steps=("language",))
    assert out["kept"]["documents"] == 50


def test_commas_are_no_words(tmp_path):
    """Prose with a mark behind every third word, which the engine's rule would drop."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherQualityFilter

    words = " ".join(PASSAGES[0].split()[:200]).replace(",", "")
    text = " ".join(f"{word}," if i % 3 == 2 else word for i, word in enumerate(words.split(" ")))
    judged = [
        rule(language="eng").filter(Document(text, "x"))
        for rule in (GopherQualityFilter, quality.GopherWords)
    ]
    assert judged == [(False, "gopher_below_alpha_threshold"), True]


@pytest.mark.filterwarnings("ignore:The 'registered_domain' property:DeprecationWarning")
def test_lists_caps_and_held_out_text(tmp_path):
    secret = " ".join(f"secret{i}" for i in range(30))
    records = [
        {"text": f"{text}\n{'x' if i else secret}", "id": str(i), "source": "ab"[i % 2]}
        for i, text in enumerate(PASSAGES[:20])
    ]
    records.append({"text": f"{PASSAGES[21]} Darcy's Snake Oil heals.", "id": "words"})
    records.append({"text": PASSAGES[22], "id": "url", "url": "https://www.bad-pages.com/page"})
    records.append({"text": PASSAGES[23], "id": "good", "url": "https://good-pages.com/page"})
    (tmp_path / "words.txt").write_text("# comment\nsnake oil\n")
    (tmp_path / "urls.txt").write_text("bad-pages.com\n")
    held_out = curated.write(tmp_path / "held_out.jsonl", [{"question": f"{secret}?", "n": 1}])
    found, out = curated.curate(
        tmp_path,
        records,
        steps=("language",),
        block_words=str(tmp_path / "words.txt"),
        block_urls=str(tmp_path / "urls.txt"),
        decontaminate=(str(held_out),),
        max_source_bytes=5000,
        terms=("Harriet", "Zarathustra"),
    )
    why = {document["id"]: document["rule"] for document in curated.documents(f"{out}/dropped")}
    assert why["words"] == "block_words"
    assert why["url"].startswith("block_url_")
    assert why["0"] == "contaminated"
    kept = curated.documents(f"{out}/kept")
    assert "good" in {document["id"] for document in kept}
    for source in "ab":
        sizes = [len(d["text"].encode()) for d in kept if d.get("source") == source]
        assert 2500 < sum(sizes) <= 5000
    assert {rule for rule in why.values() if "cap" in rule} == {"cap_source"}
    terms = found["balance"].get("term", {})
    assert terms.keys() == {"harriet"}
    assert terms["harriet"]["before"]["documents"] == sum(
        "Harriet" in record["text"] for record in records
    )


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"steps": ("quality",)}, "add language"),
        ({"steps": ("dedupe",)}, "no step called 'dedupe'"),
        ({"block_words": "nowhere.txt"}, "nowhere.txt: cannot be read"),
        ({"classifier": "x.bin"}, "go together"),
        ({"text_key": "body"}, "has no field 'body'"),
        ({"decontaminate": ("nowhere.jsonl",)}, "nowhere.jsonl"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, recipe, words):
    with pytest.raises(UserError) as caught:
        curated.curate(tmp_path, [{"text": PASSAGES[0]}], **recipe)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_after_a_mistake_the_same_folder_does(tmp_path):
    records = [{"text": PASSAGES[0], "id": "a"}]
    with pytest.raises(UserError, match="has no field 'body'"):
        curated.curate(tmp_path, records, text_key="body")
    found, _ = curated.curate(tmp_path, records)
    assert found["kept"]["documents"] == 1


def test_the_tool_shows_the_funnel(tmp_path):
    records = [{"text": text, "id": str(i)} for i, text in enumerate(PASSAGES[:5])]
    path = curated.write(tmp_path / "text.jsonl", [*records, {"text": SHORT}])
    done = curated.run(
        f"--input={path}", f"--output={tmp_path}/out", "--num_workers=1", env=os.environ
    )
    assert "documents left" in done.stdout
    assert "│ quality │" in done.stdout
    assert "kept 5 of 6 documents" in done.stdout
    assert "prepare_data.py --input=" in done.stdout
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "ledger.json").read_text())["format"] == 1


def test_the_ledger_goes_with_the_store_to_the_card(whole, tmp_path):
    found, out, _ = whole
    folder = tmp_path / "tokenizer"
    files = files_lib.find_files(f"{out}/kept/*")
    tokenizer_training.train(files, str(folder), vocab_size=400, model_type="bpe")
    prepare.prepare(files, str(folder), str(tmp_path / "store"))
    store.Store.open(str(tmp_path / "store"), "train")
    ledger = facts._ledger("elsewhere", str(tmp_path / "store"))
    assert ledger["summary"]["documents kept"] == found["kept"]["documents"]
    assert ledger["summary"]["dropped by exact_duplicate"] == 10
    again = prepare.prepare(files, str(folder), str(tmp_path / "store"))
    assert (tmp_path / "store" / store.LEDGER).exists()
    assert again["splits"]
