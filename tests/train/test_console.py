import pytest

from lmjax.data import progress
from lmjax.train.console import Console, make_console


@pytest.fixture
def forced(monkeypatch):
    """As in Jupyter and on some CI: colours are wanted, and there is no terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-color")


def test_forced_colours(forced, capsys):
    console = make_console()
    console.print("red", style="red")
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m\n"
    assert console.width == 132


def test_forced_colours_draw_no_bars(forced, capsys):
    console, lines = Console(), []
    console.start(0, 10)
    console.step(1, "loss 1.0")
    console.line("step 1")
    console.close()
    with progress.shown("tokenising", lines.append) as show:
        show(5, 10)
    assert not console.live
    assert capsys.readouterr() == ("step 1\n", "")
