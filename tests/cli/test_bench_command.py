"""`drakegpt bench`: its JSON, its tables, its words."""

import dataclasses

import pytest
import torch

from drakegpt.bench import nanogpt
from drakegpt.bench.hardware import describe_machine
from drakegpt.bench.timing import Measurement, Times, describe_settings
from drakegpt.bench.workloads import bench_config
from drakegpt.cli import console, progress
from drakegpt.cli.bench_output import show_speeds
from drakegpt.cli.console import Screen


def test_json_is_one_object_and_progress_is_apart(drakegpt, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    shown = drakegpt("bench", "singleheadattentionlm", "--rounds", 1, "--json")
    assert shown.code == 0, shown.err
    assert shown.out.count("\n") == 1
    result = shown.json
    assert result.keys() == {"machine", "settings", "models"}
    assert result["settings"]["rounds"] == 1
    (model,) = result["models"]
    assert model["model"] == "SingleHeadAttentionLM"
    assert model["lower_bound"]["flops_per_iteration"] == 8_699_904
    for kind in ("training", "training_with_evaluations", "generation"):
        for figures in model[kind]["implementations"].values():
            assert len(figures["repetitions_ms"]) == 1
    assert "SingleHeadAttentionLM (1 of 1): warming up: drakegpt, training" in shown.err
    assert "\x1b" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["TransfomerLM"], "Did you mean TransformerLM"),
        (["GPT1LM"], "GPT1LM is no choice here"),
        (["--rounds", 0], "--rounds"),
        (["--set", "iters=5"], "iters cannot be set here"),
        (["--set", "num_heads=3"], "num_heads"),
        (["--embedding-dim", 128], "--set embedding_dim=VALUE"),
        (["--to-loss", 1.9, "--scaled", "--peers"], "--to-loss cannot use --scaled and --peers"),
        (["BigramLM", "BlocksLM", "--to-loss", 1.9], "--to-loss cannot use BlocksLM"),
        (["--to-loss", 1.9, "--set", "dtype=float32"], "dtype cannot be set here"),
        (["--dtype", "int8"], "--dtype"),
    ],
)
def test_what_cannot_be_measured_is_said(drakegpt, arguments, words):
    shown = drakegpt("bench", *arguments)
    assert shown.code == 2
    assert shown.out == ""
    assert words in shown.err


def measurement(size="scaled", memory=True):
    """Made-up figures: drakegpt is twice as fast as the textbook, a quarter faster than plain."""
    times = Times(
        {
            "drakegpt": [1.2, 1.2],
            "textbook at 1 thread": [4.0, 4.0],
            "textbook at 2 threads": [2.4, 2.4],
            "plain PyTorch": [1.5, 1.5],
            "without replay": [1.8, 1.8],
        }
    )
    of_two = {"drakegpt": 100 * 2**20, "textbook": 3_000 * 2**20}
    return Measurement(
        config=bench_config("TransformerLM", size),
        threads={"drakegpt": 2, "textbook at 1 thread": 1, "textbook at 2 threads": 2},
        dtype="float32",
        training=times,
        with_evaluations=times,
        generation=times,
        flops=3 * 10**11,
        matmul_rate=10**12,
        memory={"training": of_two | {"plain PyTorch": 5 * 2**20}, "generation": of_two}
        if memory
        else {},
    )


def rendered(measured, capsys):
    show_speeds(measured, describe_machine(torch.device("cpu")), describe_settings(7))
    return capsys.readouterr().out


def rows(out):
    lines = [line for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_tables_hold_the_figures_and_say_what_they_mean(capsys):
    out = rendered([measurement()], capsys)
    assert rows(out) == [
        [
            "TransformerLM",
            "2 : 2",
            "1,200",
            "1,800",
            "1,500",
            "2,400",
            "2.00",
            "2.00-2.00",
            "2.00",
            "1.25",
            "300",
            "4.00",
        ],
        ["TransformerLM", "2 : 2", "0.833", "0.417", "2.00", "2.00-2.00"],
        ["TransformerLM", "100", "3,000", "5", "100", "3,000"],
    ]
    for words in ("Training at scaled size", "Generation at scaled size", "Peak memory",
                  "Medians of 7 rounds", "1,000,000 random", "1,000 GFLOP/s",
                  f"PyTorch {torch.__version__}"):  # fmt: skip
        assert words in out


def test_what_was_not_measured_is_not_shown(capsys):
    out = rendered([measurement("default", memory=False)], capsys)
    assert "Peak memory" not in out
    unknown = dataclasses.replace(measurement(), memory={"training": {"drakegpt": None}})
    assert "Peak memory: not available" in rendered([unknown], capsys)


def test_tables_fit_a_narrow_terminal(capsys, monkeypatch):
    narrow = Screen(width=60)
    monkeypatch.setattr(console, "results", lambda: narrow)
    out = rendered([measurement()], capsys)
    assert all(len(line) <= 60 for line in out.splitlines())
    assert [row[0] for row in rows(out)] == ["TransformerLM"] * 3
    assert rows(out)[0][1:4] == ["1,200", "2,400", "2.00"]
    left_out = "Left out: threads, without replay, plain PyTorch, range, speedup with evaluations"
    assert left_out in " ".join(out.split())
    assert "…" not in "".join("".join(row) for row in rows(out))


def test_a_row_measured_while_other_programs_were_busy_is_marked(capsys):
    """The clock showed 1.5 times what the processors did, or as much; on a GPU that is unknown."""
    calm, busy = measurement(), measurement()
    for measured, times in ((calm, 1.0), (busy, 1.5)):
        for name, seconds in measured.training.seconds.items():
            measured.training.processor[name] = [second / times for second in seconds]
    out = " ".join(rendered([calm, busy], capsys).split())
    assert "│ TransformerLM │" in out
    assert "│ TransformerLM * │" in out
    assert "Rows marked *: measured while other programs were busy" in out
    assert "up to 1.5 times" in out
    assert "All rows: measured while other programs" in " ".join(rendered([busy], capsys).split())
    for quiet in (calm, measurement()):
        assert "busy" not in rendered([quiet], capsys)


def test_another_shape_and_dtype(drakegpt):
    """The peers have the same shape; the size is no longer named by a word."""
    shape = {"embedding_dim": 8, "num_heads": 2, "num_layers": 1, "context_length": 4}
    settings = [word for name, value in shape.items() for word in ("--set", f"{name}={value}")]
    shown = drakegpt("bench", "BlocksLM", *settings, "--dtype", "bfloat16", "--rounds", 1, "--json")
    (model,) = shown.json["models"]
    assert shape.items() <= model["shape"].items()
    assert model["dtype"] == "bfloat16"


def test_the_shape_and_the_dtypes_are_named(capsys):
    made = measurement("default", memory=False)
    shape = {"batch_size": 12, "context_length": 64, "embedding_dim": 128, "dtype": "bfloat16"}
    out = rendered(
        [dataclasses.replace(made, config=dataclasses.replace(made.config, **shape))], capsys
    )
    assert "Training at 12 windows of 64, width 128, 3 layers, ms per iteration" in out
    assert "the usual loops with autocast to bfloat16" in " ".join(out.split())
    assert "the others in float32" in rendered([made], capsys)


def test_other_programs_are_columns_where_they_were_measured(capsys):
    made = measurement(memory=False)
    peers = {"plain PyTorch, compiled": [1.4, 1.4], "transformers GPT-2": [2.0, 2.0]}
    training = dataclasses.replace(made.training, seconds=made.training.seconds | peers)
    (row, _) = rows(rendered([dataclasses.replace(made, training=training)], capsys))
    assert row[3:7] == ["1,800", "1,500", "1,400", "2,000"]
    assert training.to_json()["speedup"]["transformers GPT-2"] == pytest.approx(2.0 / 1.2)


# --- Until a loss -------------------------------------------------------------------------------


TO_LOSS = {"context_length": 8, "embedding_dim": 16, "num_heads": 2, "num_layers": 1, "iters": 4}


@pytest.fixture
def _small_nanogpt(monkeypatch, prepared):
    shape = nanogpt.SHAPE | {"embedding_dim": 16, "context_length": 8}
    monkeypatch.setattr(nanogpt, "SHAPE", shape)
    monkeypatch.setattr(nanogpt, "ITERS", 3)


def to_loss(drakegpt, target, *more):
    settings = [word for name, value in TO_LOSS.items() for word in ("--set", f"{name}={value}")]
    return drakegpt("bench", "--to-loss", target, *settings, *more)


@pytest.mark.usefixtures("_small_nanogpt")
def test_the_time_until_a_loss_is_one_object(drakegpt):
    shown = to_loss(drakegpt, 9.5, "--rounds", 2, "--json")
    assert shown.code == 0, shown.err
    ours, theirs, *_ = shown.json["attempts"]
    assert len(shown.json["attempts"]) == 4
    assert (ours["name"], theirs["name"]) == ("drakegpt", "plain PyTorch, nanoGPT's settings")
    assert ours["reached"]
    assert theirs["reached"]
    assert ours["loss"] == ours["checks"][-1]["loss"] <= 9.5
    assert shown.json["settings"]["nanogpt"]["iters"] == 3
    assert "--recipe fast" in shown.json["settings"]["command"]


@pytest.mark.usefixtures("_small_nanogpt")
def test_a_loss_that_is_not_reached_is_said(drakegpt):
    shown = to_loss(drakegpt, 0.01)
    assert shown.code == 0, shown.err
    said = " ".join(shown.out.split())
    assert "drakegpt did not reach 0.01: " in said
    assert "after 4 iterations" in said
    assert "plain PyTorch, nanoGPT's settings did not reach 0.01" in said
    assert "times less" not in said
    stopped = to_loss(drakegpt, 0.01, "--max-minutes", 0)
    assert "after 1 iteration and" in " ".join(stopped.out.split())
