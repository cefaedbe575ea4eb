"""bfloat16 on a CPU is taken where a trial finds it faster, and decided once."""

import json

import pytest
import torch
from learning import record

from drakegpt.config import LADDER
from drakegpt.runs.run import open_run
from drakegpt.runs.start import resolve_run, start_run
from drakegpt.training import dtype_trial

WIDE = {"embedding_dim": 96, "num_layers": 1, "recipe": "fast", "dropout": 0.0}
WIDE |= {"iters": 4, "eval_interval": 4, "eval_iters": 1}


@pytest.fixture
def trials(monkeypatch):
    """A processor that multiplies bfloat16 1.5 times as fast, and the trials made on it."""
    made = []

    def measure(config, vocab_size):
        made.append((config, vocab_size))
        return 1.5

    monkeypatch.setattr(dtype_trial, "has_fast_bfloat16", lambda: True)
    monkeypatch.setattr(dtype_trial, "measure_speedup", measure)
    return made


def test_one_trial_decides_for_all_models_of_a_comparison(prepared, trials):
    for model in LADDER:
        assert resolve_run(model, "default", prepared, WIDE).dtype == "bfloat16"
    assert len(trials) == 1
    assert resolve_run("TransformerLM", "default", prepared, WIDE, {"batch_size": 8})
    assert len(trials) == 2


@pytest.mark.parametrize(
    "settings", [{"embedding_dim": 32}, {"recipe": "original"}, {"bits": "1.58"}]
)
def test_no_trial_where_float32_is_meant(prepared, trials, settings):
    assert resolve_run("TransformerLM", "default", prepared, WIDE | settings).dtype == "auto"
    assert not trials


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dtype_that_is_given_is_taken(prepared, trials, dtype):
    settings = WIDE | {"dtype": dtype}
    assert resolve_run("TransformerLM", "default", prepared, settings).dtype == dtype
    assert not trials


def test_a_gain_below_the_margin_is_not_worth_the_precision(prepared, trials, monkeypatch):
    monkeypatch.setattr(dtype_trial, "measure_speedup", lambda *_: dtype_trial.MARGIN - 0.01)
    assert resolve_run("TransformerLM", "default", prepared, WIDE).dtype == "auto"


def test_the_first_of_two_trials_at_once_decides(prepared, trials, monkeypatch, home):
    def measure_while_another_process_stores_its_result(*_):
        (home / "trials").mkdir(parents=True)
        monkeypatch.setattr(dtype_trial, "measure_speedup", lambda *_: 9.9)
        dtype_trial._load_or_measure(config, 30)
        return 1.0

    config = resolve_run("TransformerLM", "default", prepared, WIDE, {"dtype": "float32"})
    monkeypatch.setattr(
        dtype_trial, "measure_speedup", measure_while_another_process_stores_its_result
    )
    assert resolve_run("TransformerLM", "default", prepared, WIDE).dtype == "bfloat16"
    (file,) = (home / "trials").iterdir()
    assert json.loads(file.read_text())["speedup"] == 9.9
    file.write_text("{")
    monkeypatch.setattr(dtype_trial, "measure_speedup", lambda *_: 1.0)
    assert resolve_run("TransformerLM", "default", prepared, WIDE).dtype == "auto"
    assert json.loads(file.read_text())["speedup"] == 1.0


def test_a_run_keeps_what_was_decided(prepared, trials, home):
    """Resumed where float32 would be faster, it still ends in the same bytes."""
    config = resolve_run("TransformerLM", "default", prepared, WIDE)
    whole, cut = (start_run(config, prepared, name) for name in ("whole", "cut"))
    record(whole)
    record(cut, until=2, save=True)
    (file,) = (home / "trials").iterdir()
    file.unlink()
    record(open_run(cut.folder), resume=True)
    assert open_run(cut.folder).config.dtype == "bfloat16"
    cpu = torch.device("cpu")
    expected, found = (run.load_model(cpu).state_dict() for run in (whole, cut))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_real_trial_compares_steps_and_leaves_no_trace(prepared):
    config = resolve_run("BlocksLM", "default", prepared, WIDE, {"num_heads": 3})
    before = torch.get_rng_state()
    assert 0.01 < dtype_trial.measure_speedup(config, 30) < 100
    assert torch.equal(torch.get_rng_state(), before)
