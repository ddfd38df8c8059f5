"""docs/choose.md: its table and picture are what the recorded ladders give."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from lmjax.plan import picture

DOCS = Path(__file__).parents[2] / "docs"
RECORD = json.loads((DOCS / "images/ladders.json").read_text())
ROW = re.compile(
    r"^\| (?P<variant>[\w-]+) \| .* \| (?P<middle>[\d.]+) \((?P<low>[\d.]+) to (?P<high>[\d.]+)\) "
    r"\| (?P<loss>[\d.]+) \| (?P<inside>\w+) \|$",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def panels():
    return {panel.title: panel for panel in picture.of_record(RECORD)}


def test_the_table_is_that_of_the_record(panels):
    rows = {row["variant"]: row for row in ROW.finditer((DOCS / "choose.md").read_text())}
    assert list(rows) == list(panels) == ["encoder", "decoder", "encoder-decoder"]
    for name, panel in panels.items():
        tokens = np.array(panel.points.tokens.max())
        low, middle, high = panel.fit.interval(np.array(panel.params), tokens, of_run=True)
        for key, value in (("low", low), ("middle", middle), ("high", high), ("loss", panel.loss)):
            assert float(rows[name][key]) == pytest.approx(value, abs=0.006), (name, key)
        assert rows[name]["inside"] == ("yes" if low <= panel.loss <= high else "no")


def test_the_picture_is_of_them(panels):
    svg = (DOCS / "images/ladders.svg").read_text()
    assert svg.count('class="held"') == len(panels)
    assert all(f">{name}</text>" in svg for name in panels)
    points = sum(len(panel.points.loss) for panel in panels.values())
    assert svg.count("<circle") == points + len(panels)
