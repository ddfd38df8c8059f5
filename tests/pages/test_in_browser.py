"""Pages in Chromium: curves, zoom, logarithmic axes, themes."""

import browser as browser_lib
import numpy as np
import pytest

from lmjax.pages import Page, Section, charts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser_lib.is_here(), reason="no chromium and chromedriver"),
]

RANGE = "return document.querySelector('.plot')._fullLayout.{}axis.range"
TYPE = "return document.querySelector('.plot')._fullLayout.{}axis.type"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    x = np.arange(1, 5001)
    runs = [charts.thinned(charts.Line(name, x, 9 * x**-0.1 + n)) for n, name in enumerate("ab")]
    content = Page(
        "Two runs",
        "as a test",
        [
            Section("Near", charts.Chart("Loss", runs, about="Falls.").html()),
            Section("Space", *["nothing"] * 100),
            Section("Far", charts.Chart("Loss", runs, marks=[(7, "here")], log_x=True).html()),
        ],
    ).render()
    path = tmp_path_factory.mktemp("pages") / "page.html"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def window():
    with browser_lib.browser() as found:
        yield found


@pytest.fixture
def opened(window, page):
    window.look()
    window.open(page)
    window.complaints()
    yield window
    assert window.complaints() == []


def test_a_curve_is_drawn_when_it_comes_into_sight(opened):
    drawn = "return document.querySelectorAll('.plot .main-svg').length > 0 && "
    assert opened.run("return document.querySelectorAll('.js-plotly-plot').length") == 1
    opened.run("document.getElementById('far').scrollIntoView()")
    opened.until(f"{drawn} document.querySelectorAll('.js-plotly-plot').length === 2")
    assert opened.run("return document.querySelectorAll('.js-plotly-plot .legendtext').length") == 4


def test_zoom_by_dragging_and_back_by_double_click(opened):
    from selenium.webdriver import ActionChains

    whole = opened.run(RANGE.format("x"))
    plot = opened.driver.find_element("css selector", ".plot .nsewdrag")
    drag = ActionChains(opened.driver).move_to_element_with_offset(plot, -200, 0)
    drag.click_and_hold().move_by_offset(100, 2).release().perform()
    opened.until(RANGE.format("x") + f"[1] < {whole[1] / 2}")
    ActionChains(opened.driver).double_click(plot).perform()
    opened.until(RANGE.format("x") + f"[1] > {whole[1] * 0.99}")


def test_an_axis_becomes_logarithmic_by_its_button(opened):
    assert opened.run(TYPE.format("y")) == "linear"
    opened.run("document.querySelector('button[data-axis=y]').click()")
    opened.until(TYPE.format("y") + " === 'log'")
    button = "return document.querySelector('button[data-axis=y]').getAttribute('aria-pressed')"
    assert opened.run(button) == "true"


def test_curves_follow_the_theme(opened):
    ink = "return document.querySelector('.plot .legendtext').style.fill"
    light = opened.run(ink)
    opened.look(dark=True)
    opened.until(f"return document.querySelector('.plot .legendtext').style.fill !== '{light}'")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_is_wider_than_its_window(opened, width):
    opened.look(width=width)
    opened.until(f"return document.documentElement.scrollWidth <= {width}")
