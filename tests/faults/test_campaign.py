"""The campaign of docs/reliability.md, with twelve kills instead of a hundred."""

import json

import pytest
import tool_run

from lmjax.bench import flips


@pytest.mark.slow
@pytest.mark.timeout(900)  # 18 processes, one after the other, beside other tests
def test_twelve_kills_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as a user's laptop has it
    output = tmp_path / "campaign.json"
    done = tool_run.run("fault_campaign", "--kills=12", f"--output={output}")
    assert done.code == 0, done.err
    found = json.loads(output.read_text())
    ends = [end for outcome in found["outcomes"] for end in outcome["ends"]]
    assert len(ends) == 12
    assert {end["code"] for end in ends} == {-9}
    assert sum(end["fault"].startswith("kill@saved") for end in ends) == 7
    assert max(end["start"] for end in ends) > 0
    for outcome in found["outcomes"]:
        assert outcome["exact"]
        assert outcome["resumed"] == len(outcome["ends"]) == 4
        assert outcome["ulps"] == outcome["differing_rows"] == outcome["differing_steps"] == 0
        assert outcome["rows"] > 20
        assert outcome["steps"] > 50
        assert outcome["variant"] in done.out


@pytest.mark.slow
def test_bits_are_flipped_in_what_a_campaign_leaves(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    output = tmp_path / "campaign.json"
    flags = ("--variant=encoder", "--kills=1", "--flips=2", f"--output={output}")
    done = tool_run.run("fault_campaign", *flags)
    assert done.code == 0, done.err
    (came,) = json.loads(output.read_text())["damaged"].values()
    assert came["bits flipped"] == {flips.WENT_BACK: 2}
    assert set(came["files cut or gone"]) <= {flips.WENT_BACK, flips.EQUAL}
    assert "damaged checkpoints" in done.out


def test_a_campaign_of_nothing_is_refused():
    done = tool_run.run("fault_campaign", "--kills=0")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("error: nothing to do; give --kills=N")
