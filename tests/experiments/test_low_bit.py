"""The table of few bits: its forms, its counts by hand, its losses by another way."""

import dataclasses
import math
import statistics

import pytest
import torch
from learning import prepare, small_text

from drakegpt.cli.compare.low_bit import _format_difference
from drakegpt.config import resolve
from drakegpt.data import dataset
from drakegpt.evaluation.noise import compare_losses
from drakegpt.experiments import low_bit_costs
from drakegpt.experiments.experiment import collect
from drakegpt.experiments.launcher import train_runs
from drakegpt.experiments.low_bit import (
    VARIANTS,
    LowBitRow,
    build_variant,
    find_lowest_rows,
    find_width_of_equal_bytes,
    measure,
    plan,
    summarize,
)
from drakegpt.models.packed_linear import PackedLinear, count_bytes, pack_
from drakegpt.models.registry import build_model
from drakegpt.runs.packing import pack_run
from drakegpt.runs.scores import score_run

CPU = torch.device("cpu")
SHORT = {"iters": 6, "eval_interval": 3, "eval_iters": 1}


def train_forms(prepared, seed=42):
    """All runs that the table needs, as the command trains them."""
    experiment = plan(SHORT, "default", prepared, [seed])
    return collect(experiment, prepared, lambda jobs: train_runs(jobs, prepared)).with_seed(seed)


def make_forms(_drakegpt):
    train_forms(prepare(small_text()))


@pytest.fixture
def forms(home_as):
    """The runs of one seed."""
    home_as(make_forms)
    return train_forms(dataset.load("small"))


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(low_bit_costs, "ROUNDS", 1)
    monkeypatch.setattr(low_bit_costs, "REPETITION", 0.01)


@pytest.mark.slow
def test_each_form_is_measured_and_equals_what_quantize_makes(prepared, quickly):
    runs = [train_forms(prepared, seed) for seed in (1, 2)]
    heard = []
    rows = measure(prepared, runs, CPU, lambda *what: heard.append(what))
    assert [row.name for row in rows] == [form.name for form in VARIANTS]
    by_name = {row.name: row for row in rows}
    for bits, name in (("8", "8 bits"), ("1.58", "1.58 bits"), ("1", "1 bit")):
        row = by_name[f"{name}, rounded after training"]
        losses = [score_run(pack_run(of_seed["full"], bits)).val.loss for of_seed in runs]
        assert row.val_losses == pytest.approx(losses, abs=1e-6)
    packed = pack_run(runs[0]["1.58"], "1.58")
    few, full = by_name["1.58 bits"], rows[0]
    assert few.val_losses[0] == pytest.approx(score_run(packed).val.loss, abs=1e-6)
    assert few.val_loss == statistics.fmean(few.val_losses)
    assert few.spread == statistics.stdev(few.val_losses)
    assert few.difference == pytest.approx(few.val_loss - full.val_loss)
    rounded = by_name["8 bits, rounded after training"]
    assert rounded.noise == 0.005  # both forms are of the same runs
    assert rounded.below_first.within_noise
    assert few.bits_per_character == pytest.approx(few.val_loss / math.log(2))
    stored = packed.last_checkpoint().weights.stat().st_size
    assert 0 < stored - few.file_bytes < 2000  # settings and tokenizer, as metadata
    assert few.packed_bytes + few.remainder_bytes < few.file_bytes < full.file_bytes / 3
    assert full.packed_bytes == 0
    assert full.remainder_bytes == full.resident_bytes
    assert by_name["bfloat16"].resident_bytes == full.resident_bytes / 2
    assert abs(by_name["bfloat16"].difference) < 0.01
    assert by_name["1.58 bits, twice as wide"].embedding_dim == 64
    assert full.speedup == {1: 1.0, 32: 1.0}
    for row in rows:
        assert len(row.runs) == 2
        assert row.peak_memory is None or row.peak_memory > row.resident_bytes
        assert all(speed > 0 for speed in row.tokens_per_second.values())
    assert len(summarize(rows)) == 9
    assert any("round 1 of 1: 1 bit, 32" in what for what, _, _ in heard)


def form(name, *losses, first=(2.0, 2.1, 2.2), paired=False):
    """A row of made-up losses beside those of float32."""
    below = compare_losses(first, losses, same_seeds=paired)
    return LowBitRow(
        name=name, runs=("r",) * len(losses), embedding_dim=32, val_losses=losses,
        bits_per_character=2.0, difference=0.0 - below.decrease, noise=below.noise,
        paired=below.paired, file_bytes=10, packed_bytes=1, remainder_bytes=1, resident_bytes=1,
        peak_memory=None, tokens_per_second={1: 1.0, 32: 1.0}, speedup={1: 1.0, 32: 1.0},
        training_seconds=1.0,
    )  # fmt: skip


def test_what_noise_does_not_tell_from_float32_is_level_with_it():
    rows = [
        form("float32", 2.0, 2.1, 2.2),
        form("1.58 bits", 2.02, 2.11, 2.23),
        form("8 bits, rounded after training", 2.0001, 2.1001, 2.2001, paired=True),
        form("1.58 bits, rounded after training", 3.0, 3.1, 3.2, paired=True),
    ]
    trained, rounded, to_8_bits, *_ = summarize(rows)
    assert trained == (
        "Trained with 1.58 bits, the loss is level with float32 (within noise: 0.0200 of 0.1677 "
        "nats); means of 3 seeds each."
    )
    assert to_8_bits == (
        "Rounded to 8 bits after training, it is level with float32 (within noise: 0.0001 of "
        "0.0050 nats; paired by seed)."
    )
    assert rounded == (
        "Rounded to 1.58 bits after training, it is 1.000 nats above float32 (paired by seed)."
    )
    assert [row.name for row in find_lowest_rows(rows)] == [row.name for row in rows[:3]]
    assert [_format_difference(row) for row in rows[1:]] == ["≈ +0.0200", "≈ +0.0001", "+1.0000"]


def test_forms_without_runs_are_left_out(forms, quickly, monkeypatch):
    monkeypatch.setattr(low_bit_costs, "peak_memory", lambda *_: None)
    runs = [{name: forms[name] for name in ("full", "1")}]
    rows = measure(dataset.load("small"), runs, CPU)
    kept = [form.name for form in VARIANTS if form.trained in ("full", "1")]
    assert [row.name for row in rows] == kept
    assert rows[0].spread is None
    assert summarize(rows) == []  # nothing of 1.58 bits to speak of


def test_runs_are_told_apart_by_all_that_matters(forms):
    data = dataset.load("small")
    assert set(forms) == {form.trained for form in VARIANTS}
    assert len({run.name for run in forms.values()}) == len(forms)
    assert forms["from full"].config.init_from == forms["full"].name
    again = collect(plan({**SHORT, "device": "cpu"}, "default", data, [42]), data)
    assert {name: run.name for name, run in again.with_seed(42).items()} == {
        name: run.name for name, run in forms.items()
    }
    assert again.missing == ()
    other = collect(plan(SHORT, "default", data, [43]), data)
    assert other.with_seed(43) == {}
    assert [variant for variant, _ in other.missing] == list(forms)


def test_the_plan_changes_one_thing_at_a_time(prepared):
    plans = plan({"iters": 50}, "default", prepared, [42]).variants
    few = dataclasses.asdict(plans["1.58"])

    def differs(name):
        other = dataclasses.asdict(plans[name])
        return {key for key in few if few[key] != other[key]}

    assert differs("1") == {"bits"}
    assert differs("wide") == {"embedding_dim"}
    assert plans["full"].recipe == plans["1.58"].recipe == "fast"
    assert {config.iters for config in plans.values()} == {50}


@pytest.mark.parametrize(("iters", "dropout"), [(5, 0.0), (5000, 0.1)])
def test_all_forms_drop_as_much(prepared, iters, dropout):
    """A model in float32 that drops more than it should would make few bits look well."""
    plans = plan({"embedding_dim": 96, "iters": iters}, "default", prepared, [42]).variants
    assert {config.dropout for config in plans.values()} == {dropout}


@pytest.mark.parametrize(("width", "heads", "layers"), [(32, 4, 3), (96, 6, 2)])
def test_a_small_model_in_floats_has_as_many_bytes(width, heads, layers):
    shape = {"embedding_dim": width, "num_heads": heads, "num_layers": layers}
    few = resolve("TransformerLM", "default", "", {**shape, "bits": "1.58"}).model_settings(65)
    goal = count_bytes(pack_(build_model(few)))

    def weighs(small):
        full = dataclasses.replace(few, bits="full", embedding_dim=small)
        return count_bytes(build_model(full)).resident

    chosen = find_width_of_equal_bytes(few)
    assert chosen % heads == 0
    misses = {
        w: abs(weighs(w) - goal.packed - goal.remainder)
        for w in (chosen - heads, chosen, chosen + heads)
        if w
    }
    assert min(misses, key=misses.get) == chosen


def test_a_form_keeps_its_run_as_it_was(forms):
    run = forms["full"]
    rounded = build_variant(run, next(form for form in VARIANTS if form.rounded == "1"))
    assert any(isinstance(layer, PackedLinear) for layer in rounded.modules())
    assert not any(isinstance(layer, PackedLinear) for layer in run.load_model(CPU).modules())
