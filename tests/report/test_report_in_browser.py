"""A report of 100,000 rows in Chromium."""

import browser as browser_lib
import made_run
import numpy as np
import pytest

from lmjax.report import report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser_lib.is_here(), reason="no chromium and chromedriver"),
]


def many_rows(num=100_000):
    rng = np.random.default_rng(0)
    noise, norms, rates = rng.normal(0, 0.05, num), rng.lognormal(size=num), rng.random(num)
    for step in range(10, 10 * num + 1, 10):
        i = step // 10 - 1
        loss = float(8 * step**-0.1 + noise[i])
        yield made_run.train_row(
            step,
            loss,
            grad_norm=float(norms[i]),
            tokens_per_second=1e5 * (1 + 0.1 * rates[i]),
            max_loss=loss + 0.2,
            max_loss_step=step - i % 10,
            max_grad_norm=float(norms[i]) + 1,
            max_grad_norm_step=step,
        )
        if step % 10_000 == 0:
            yield made_run.train_row(step, loss + 0.1) | {"split": "eval"}


def test_a_hundred_thousand_rows_open_fast_and_zoom(tmp_path):
    page = tmp_path / "report.html"
    page.write_bytes(report.make([made_run.make(tmp_path, many_rows())]))
    assert page.stat().st_size < 5e6
    with browser_lib.browser() as window:
        window.look()
        assert min(window.open(page) for _ in range(3)) < 3  # others are at work beside this
        window.run("document.getElementById('steering').scrollIntoView()")
        window.until("return document.querySelectorAll('#steering .main-svg').length > 0")
        plot = "document.querySelector('#steering .js-plotly-plot')"
        window.run(f"Plotly.relayout({plot}, {{'xaxis.range': [1000, 2000]}})")
        window.until(f"return {plot}._fullLayout.xaxis.range[1] === 2000")
        assert window.run(f"return {plot}._fullLayout.yaxis.type") == "log"
        assert window.complaints() == []
