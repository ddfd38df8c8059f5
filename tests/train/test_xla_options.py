"""Options that XLA compiles the step with: whose word counts, and what is refused."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
import small_run

from lmjax import fields
from lmjax.errors import UserError
from lmjax.train import xla_options

GPU = SimpleNamespace(platform="gpu")
SCHEDULER = "xla_gpu_enable_latency_hiding_scheduler"


def config(options=()):
    return fields.from_dict({"train": {"xla_options": options}})


def test_several_gpus_hide_their_collectives_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert xla_options.of(config(), GPU, 1) == {}
    assert xla_options.of(config(), GPU, 8) == {SCHEDULER: True}
    assert xla_options.of(config(f"{SCHEDULER}=false"), GPU, 8) == {SCHEDULER: False}
    monkeypatch.setenv("XLA_FLAGS", f"--{SCHEDULER}=false")
    assert xla_options.of(config(), GPU, 8) == {}


def test_xla_knows_what_is_asked_of_it(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    options = xla_options.of(config(), GPU, 8)
    assert jax.jit(lambda: 1, compiler_options=options)() == 1


@pytest.mark.parametrize("wrong", ["xla_go_faster=true", "xla_cpu_enable_fast_math=rather"])
def test_what_xla_does_not_know_is_one_line(wrong):
    with pytest.raises(UserError, match=r"^config\.train\.xla_options: [^\n]*xla_[^\n]*$"):
        xla_options.of(config(wrong), jax.devices()[0], 1)
    with pytest.raises(UserError, match="name=value"):
        config("fast")


def test_the_step_alone_is_compiled_with_them(tmp_path):
    """By one that makes XLA write what it compiles."""
    dumped = tmp_path / "dumped"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lmjax.main", f"--config={small_run.config_file(tmp_path)}"),
            *(f"--workdir={tmp_path}/run", "--config.train.num_steps=1"),
            f"--config.train.xla_options=xla_dump_to={dumped},xla_dump_hlo_as_text=true",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    names = {path.name.split(".")[1] for path in dumped.glob("module_*.txt")}
    assert "jit__whole" in names
    assert "jit_step" not in names  # of evaluation
