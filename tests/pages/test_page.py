"""Pages: one file, nothing from outside, what is text stays text."""

import base64
import gzip
import json
import re

import numpy as np
import pytest

from lmjax.pages import Page, Section, charts, markup

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'so'"


def numbers(content: bytes) -> dict:
    """What the page's script reads."""
    found = re.search(rb'<script type="application/gzip" id="numbers">([^<]*)<', content)
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def chart(**changes) -> charts.Chart:
    lines = [charts.Line(name, range(3), (3.0, float("nan"), 1.0)) for name in ("a", NASTY)]
    return charts.Chart(**{"title": NASTY, "lines": lines, "about": NASTY} | changes)


def test_text_cannot_become_markup():
    content = Page(
        NASTY,
        NASTY,
        [
            Section(NASTY, NASTY, markup.details(NASTY, markup.tag("p", NASTY, title=NASTY))),
            Section("Table", markup.table([NASTY], [[NASTY]]), markup.bars([NASTY], [1])),
            Section("Chart", chart(marks=[(1, NASTY)]).html()),
        ],
    ).render()
    assert b"<script>alert" not in content
    assert b"<img" not in content
    assert content.count(b"&lt;img src=x") >= 10
    assert numbers(content)["charts"][0]["lines"][1]["name"] == NASTY


def test_nothing_comes_from_outside():
    content = Page("t", "s", [Section("Chart", chart().html())]).render()
    outside = re.sub(rb'<script type="application/gzip"[^<]*</script>', b"", content)
    assert b"default-src &#x27;none&#x27;;" in outside
    assert not re.findall(rb"(?:src|href)=\"(?!#|data:,\")", outside)
    assert len(content) < 2.5e6


def test_a_page_without_charts_is_small_and_needs_no_library():
    content = Page("t", "s", [Section("Words", "only words")]).render()
    assert b"<p>only words</p>" in content
    assert len(content) < 20_000


def test_equal_columns_are_there_once_and_gaps_are_null():
    found = numbers(Page("t", "s", [Section("C", chart().html(), chart().html())]).render())
    assert found["columns"] == [[0, 1, 2], [3, None, 1]]
    assert [line["y"] for spec in found["charts"] for line in spec["lines"]] == [1, 1, 1, 1]


@pytest.mark.parametrize("length", [10, 2000, 2001, 100_000])
def test_thinning_keeps_spikes_and_means(length):
    rng = np.random.default_rng(length)
    y = rng.normal(size=length)
    y[length // 3], y[length // 2] = 99.0, np.nan
    line = charts.thinned(charts.Line("a", np.arange(length), y))
    assert len(line.y) <= 2000
    assert np.nanmax(line.y if line.high is None else line.high) == 99.0
    assert line.x[-1] == length - 1
    if length == 100_000:
        slow = [np.nanmean(y[i : i + 50]) for i in range(0, length, 50)]
        np.testing.assert_allclose(line.y, slow, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(line.low, np.nanmin(y.reshape(-1, 50), axis=1))
