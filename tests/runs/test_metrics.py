import json

import pytest
from learning import train

from drakegpt.errors import RunError
from drakegpt.runs.run import open_run


def test_half_a_line_in_the_metrics_is_left_out(prepared):
    run = train(prepared, "BigramLM")
    evaluations = run.evaluations
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "evalua')
    assert len(open_run(run.folder).evaluations) == len(evaluations)


@pytest.mark.parametrize("line", ["garbage", "[]", "{}", '{"event": "evaluation"}', "3"])
def test_damaged_metrics_are_named(prepared, line):
    run = train(prepared, "BigramLM")
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        _ = open_run(run.folder).evaluations


EVALUATION = {
    "event": "evaluation", "iteration": 3, "train_loss": 1.0, "val_loss": 1.0,
    "learning_rate": 0.1, "tokens_per_second": 1.0, "seconds": 1.0,
}  # fmt: skip


ODD = [
    EVALUATION | {"iteration": "3"}, EVALUATION | {"iteration": -3},
    EVALUATION | {"iteration": 1.5}, EVALUATION | {"iteration": True},
    EVALUATION | {"val_loss": "1"},
    EVALUATION | {"train_loss": float("nan")}, EVALUATION | {"seconds": None},
    EVALUATION | {"tokens_per_second": float("inf")}, EVALUATION | {"event": "holiday"},
    EVALUATION | {"event": "finished", "reason": "minutes"},
    EVALUATION | {"event": "finished", "reason": ["patience"]}, EVALUATION | {"event": ["a"]},
    {"event": "stopped", "reason": "pruned"}, {"event": "finished", "reason": "iterations"},
]  # fmt: skip


@pytest.mark.parametrize("line", ODD, ids=str)
def test_a_damaged_run_is_one_row_of_the_list(drakegpt, prepared, line):
    train(prepared, "BigramLM", "good")
    run = train(prepared, "BigramLM", "odd")
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    listed = drakegpt("runs")
    assert listed.code == 0, listed.err
    assert "metrics.jsonl of odd is damaged" in listed.err
    rows = {row["run"]: row for row in drakegpt("runs", "list", "--json").json["runs"]}
    assert (rows["good"]["state"], rows["odd"]["state"]) == ("finished", "damaged")
    assert "metrics.jsonl" in rows["odd"]["problem"]
    assert drakegpt("compare").code == 0
    assert drakegpt("eval").code == 0
    told = drakegpt("runs", "show", "odd")
    assert told.code == 1
    assert "damaged" in told.err


def test_a_loss_too_large_for_a_float_is_damage(drakegpt, prepared):
    run = train(prepared, "BigramLM", "a")
    file = run.folder / "metrics.jsonl"
    first, *others = file.read_text().splitlines()
    line = json.loads(first) | {"val_loss": 10**400}
    file.write_text("\n".join([json.dumps(line), *others, ""]))
    listed = drakegpt("runs")
    assert listed.code == 0, listed.err
    assert "metrics.jsonl of a is damaged" in listed.err


def test_the_last_evaluation_is_read_without_those_before_it(prepared):
    run = train(prepared, "BigramLM")
    file = run.folder / "metrics.jsonl"
    assert run.last_evaluation == run.evaluations[-1]
    first = file.read_text().splitlines()[0]
    file.write_text("garbage\n" + (first + "\n") * 100 + '{"event": "eval')
    assert run.last_evaluation == json.loads(first)
    file.write_text("")
    assert run.last_evaluation == {}
    file.unlink()
    assert run.last_evaluation == {}
