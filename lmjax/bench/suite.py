"""Benchmarks that belong together, most telling ones first, each written as it is done.

Each is `tools/bench.py` itself in a process of its own, so that none finds another's memory or
caches; one that does not come to an end in its time is left out, and said to be.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmjax.errors import UserError

_LEAST_SECONDS = 20.0  # below which nothing is begun any more


@dataclass(frozen=True)
class Benchmark:
    """One call of the tool.

    Attributes:
      what, config: as of its flags.
      seconds: of measuring.
      arguments: further flags.
    """

    what: str
    config: str
    seconds: float
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.what}_{self.config}"


_PEER = "--against=hf"


def _whole(rows: int, vocab_size: int) -> tuple[str, ...]:
    """Flags of a published size on the bundled text: all its ids, but few of them in use."""
    return (
        "--config.tokenizer.vocab_size=8192",
        f"--config.model.vocab_size={vocab_size}",
        f"--config.train.global_batch_size={rows}",
    )


_BERT, _GPT2, _T5, _LLAMA = 30_592, 50_304, 32_128, 128_256


SUITES: dict[str, tuple[Benchmark, ...]] = {
    "gpu": (
        Benchmark("train", "bert_base", 20, (_PEER, *_whole(128, _BERT))),
        Benchmark("train", "gpt2_small", 20, (_PEER, *_whole(64, _GPT2))),
        Benchmark("train", "t5_base", 20, (_PEER, *_whole(64, _T5))),
        Benchmark("ablation", "bert_base", 30, _whole(128, _BERT)),
        Benchmark("attention", "gpt2_small", 10, _whole(16, _GPT2)),
        Benchmark("train", "bert_large", 15, _whole(64, _BERT)),
        Benchmark("train", "t5_large", 15, _whole(32, _T5)),
        Benchmark("train", "llama3_1b", 15, _whole(16, _LLAMA)),
        Benchmark("train", "gpt2_xl", 15, _whole(16, _GPT2)),
        Benchmark("ablation", "gpt2_small", 20, _whole(64, _GPT2)),
        Benchmark("ablation", "t5_base", 20, _whole(64, _T5)),
        Benchmark("checkpoint", "gpt2_small", 20, _whole(64, _GPT2)),
        Benchmark("startup", "bert_tiny", 1),
    ),
    "cpu": (
        Benchmark("train", "bert_mini", 60, (_PEER,)),
        Benchmark("train", "gpt2_mini", 60, (_PEER,)),
        Benchmark("train", "t5_mini", 60, (_PEER,)),
        Benchmark("startup", "bert_tiny", 60),
        Benchmark("ablation", "bert_mini", 60),
        Benchmark("ablation", "gpt2_mini", 60),
        Benchmark("ablation", "t5_mini", 60),
        Benchmark("attention", "t5_mini", 20),
    ),
}
LIMITS = {"gpu": 8 * 60.0, "cpu": 60 * 60.0}


def run(suite: str, folder: str, arguments: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """Runs what fits into the suite's time.

    Args:
      suite: of `SUITES`.
      folder: for their JSON files; made where it is missing.
      arguments: further flags of all of them.
      say: told what is done.

    Returns:
      What was left out, and why.

    Raises:
      UserError: the configs are not beside the tool.
    """
    root = Path(sys.argv[0]).resolve().parent.parent
    if not (root / "configs").is_dir():
        raise UserError(f"{root} has no configs; run tools/bench.py from a clone of lmjax")
    Path(folder).mkdir(parents=True, exist_ok=True)
    left_out, end = [], time.monotonic() + LIMITS[suite]
    for benchmark in SUITES[suite]:
        left = end - time.monotonic()
        if left < max(_LEAST_SECONDS, benchmark.seconds):
            left_out.append(f"{benchmark.name}: no time left")
            continue
        command = [
            sys.executable,
            str(root / "tools" / "bench.py"),
            f"--what={benchmark.what}",
            f"--config={root}/configs/{benchmark.config}.py",
            f"--seconds={benchmark.seconds}",
            f"--output={folder}/{benchmark.name}.json",
            *benchmark.arguments,
            *arguments,
        ]
        say(f"{benchmark.name} ({left:.0f} s left)")
        try:
            code = subprocess.run(command, timeout=left).returncode
        except subprocess.TimeoutExpired:
            left_out.append(f"{benchmark.name}: not done in the {left:.0f} s that were left")
            continue
        if code:
            left_out.append(f"{benchmark.name}: ended with code {code}")
    return left_out
