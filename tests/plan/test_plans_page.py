"""The page of plans has a row for every config as it is now."""

from pathlib import Path

import pytest

from lmjax import config_file
from lmjax.errors import UserError
from lmjax.plan import plan, table

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"


def test_every_config_has_a_row_with_its_hash():
    rows = table.rows((ROOT / "docs" / "plans.md").read_text())
    expected = table.configs(CONFIGS)
    assert {file.name: table.sha256(file) for file in expected} == {
        name: hash for name, (hash, _) in rows.items()
    }, "run python tools/plan.py --all"
    for file, devices in expected.items():
        assert f"| {devices} (" in rows[file.name][1]
    assert len(expected) > 20


def load(file):
    return config_file.make(config_file.load(file), {})


def test_rows_of_unchanged_configs_are_kept(tmp_path):
    for name in ("bert_tiny.py", "gpt2_tiny.py"):
        (tmp_path / name).write_text((CONFIGS / name).read_text())
    page, told = tmp_path / "plans.md", []

    def write():
        told.clear()
        table.write(tmp_path, page, load, plan.Asked(), analytic=True, tell=told.append)
        return table.rows(page.read_text())

    first = write()
    assert told == ["bert_tiny.py on v5e:2x2", "gpt2_tiny.py on v5e:2x2"]
    changed = (tmp_path / "gpt2_tiny.py").read_text().replace("v5e:2x2", "v5e:2x4")
    (tmp_path / "gpt2_tiny.py").write_text(changed)
    second = write()
    assert told == ["gpt2_tiny.py on v5e:2x4"]
    assert second["bert_tiny.py"] == first["bert_tiny.py"]
    assert second["gpt2_tiny.py"] != first["gpt2_tiny.py"]
    (tmp_path / "bert_tiny.py").unlink()
    assert list(write()) == ["gpt2_tiny.py"]


def test_a_config_that_does_not_fit_leaves_the_others_their_rows(tmp_path):
    for name in ("bert_tiny.py", "gpt2_xl.py"):
        text = (CONFIGS / name).read_text().replace("Fits v5e:8x8", "Fits v5e:1x1")
        (tmp_path / name).write_text(text)
    page = tmp_path / "plans.md"
    with pytest.raises(
        UserError, match=r"gpt2_xl.py: does not fit on v5e:1x1 \(as it is: .*; name"
    ):
        table.write(tmp_path, page, load, plan.Asked(), analytic=True, tell=lambda line: None)
    assert list(table.rows(page.read_text())) == ["bert_tiny.py"]


def test_a_config_that_names_no_devices_is_an_error(tmp_path):
    (tmp_path / "mine.py").write_text('"""Mine."""\n')
    (tmp_path / "finetune_mine.py").write_text('"""Of a run."""\n')
    with pytest.raises(UserError, match=r"mine.py names no devices .*; add a line 'Fits"):
        table.configs(tmp_path)
