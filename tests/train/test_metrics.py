import json

from lmjax.train import metrics
from lmjax.train.samples import Sample


def write(path, steps, tail=b""):
    path.write_bytes(
        b"".join(json.dumps({"step": s, "split": "train"}).encode() + b"\n" for s in steps) + tail
    )


def test_cut_drops_rows_beyond_the_step_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2, 2, 3, 4], tail=b'{"step": 5, "spl')
    assert [r["step"] for r in metrics.read(path)] == [1, 2, 2, 3, 4]
    assert metrics.cut(path, 2) == 3
    assert [r["step"] for r in metrics.read(path)] == [1, 2, 2]
    assert metrics.cut(path, 2) == 0
    assert metrics.cut(path, 0) == 3
    assert path.read_bytes() == b""


def test_nothing_to_cut_in_a_fresh_run(tmp_path):
    assert metrics.cut(tmp_path / "metrics.jsonl", 0) == 0
    assert list(metrics.read(tmp_path / "metrics.jsonl")) == []


class Heard:
    """A sink that remembers."""

    def __init__(self):
        self.got = []

    def scalars(self, step, split, row):
        self.got.append((step, split, dict(row)))

    def texts(self, step, samples):
        self.got.append((step, [sample.text for sample in samples]))

    def flush(self):
        self.got.append("flushed")

    def close(self):
        self.got.append("closed")


def test_rows_are_on_disk_at_once_and_every_sink_gets_them(tmp_path):
    sink = Heard()
    writer = metrics.MetricsWriter(tmp_path / "metrics.jsonl", tmp_path / "samples.jsonl", [sink])
    writer.write(3, "eval", {"loss": 0.1 + 0.2})
    assert list(metrics.read(tmp_path / "metrics.jsonl")) == [
        {"step": 3, "split": "eval", "loss": 0.1 + 0.2}
    ]
    writer.write_samples(3, [Sample(0, "one", "two", "three")])
    assert list(metrics.read(tmp_path / "samples.jsonl")) == [
        {"step": 3, "index": 0, "prompt": "one", "text": "two", "reference": "three"}
    ]
    writer.close()
    assert sink.got == [(3, "eval", {"loss": 0.1 + 0.2}), (3, ["two"]), "flushed", "closed"]
