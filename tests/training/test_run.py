import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from learning import SHORT, train

from drakegpt import home
from drakegpt.config import resolve
from drakegpt.data.prepare import prepare_dataset
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.errors import DrakeGPTError, RunError, UsageError
from drakegpt.runs.checkpoint import list_checkpoints, load_weights
from drakegpt.runs.run import create_run, list_runs, open_run
from drakegpt.runs.session import TrainingSession
from drakegpt.training.trainer import Evaluation

CPU = torch.device("cpu")


def test_a_run_remembers_everything(prepared):
    run = create_run(resolve("MultiHeadAttentionLM", "default", prepared.name, SHORT), prepared)
    with TrainingSession(run) as recorder:
        evaluations = [r for r in recorder.reports() if isinstance(r, Evaluation)]
    again = open_run(run.folder)
    assert again.config == run.config
    assert again.finished
    assert [e["val_loss"] for e in again.evaluations] == [e.val_loss for e in evaluations]
    assert again.dataset().metadata == prepared.metadata
    assert again.last_checkpoint().iteration == 4


def test_weights_say_what_they_are(prepared):
    run = train(prepared)
    _, metadata = load_weights(run.folder / "best.safetensors")
    best = min(run.evaluations, key=lambda e: e["val_loss"])
    assert metadata["iteration"] == str(best["iteration"])
    assert json.loads(metadata["model"])["model"] == "TransformerLM"
    assert json.loads(metadata["tokenizer"])["characters"] == run.tokenizer.characters
    assert metadata["dataset_version"] == prepared.metadata.version


def test_no_run_overwrites_another(prepared):
    first = train(prepared)
    second = train(prepared)
    assert first.folder != second.folder
    train(prepared, name="mine")
    with pytest.raises(UsageError, match="'mine' already"):
        train(prepared, name="mine")
    assert len(list_runs()) == 3


@pytest.mark.parametrize("name", ["a/b", "..", "", ".hidden", "transformerlm"])
def test_names_that_are_paths_are_refused(prepared, name):
    with pytest.raises(UsageError, match="cannot name a run"):
        train(prepared, name=name)


def test_a_run_without_a_checkpoint_is_not_offered(prepared):
    create_run(resolve("BigramLM", "default", prepared.name), prepared)
    assert list_runs() == []


@pytest.mark.parametrize("file", ["config.toml", "run.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"a": 1}', b'model = "X"\n'])
def test_damaged_runs_are_named_not_crashed_on(prepared, file, content):
    run = train(prepared, "BigramLM")
    (run.folder / file).write_bytes(content)
    with pytest.raises(RunError, match=run.name):
        open_run(run.folder)
    assert list_runs() == []


def test_damaged_weights_are_not_used(prepared):
    run = train(prepared, "BigramLM")
    for checkpoint in list_checkpoints(run.folder / "checkpoints"):
        content = bytearray(checkpoint.weights.read_bytes())
        content[-1] ^= 1
        checkpoint.weights.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        run.load_model(CPU)


def test_half_a_line_in_the_metrics_is_passed_over(prepared):
    run = train(prepared, "BigramLM")
    evaluations = run.evaluations
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "evalua')
    assert len(open_run(run.folder).evaluations) == len(evaluations)


def test_a_run_keeps_its_dataset_version(prepared, corpus):

    run = train(prepared, "BigramLM")
    prepare_dataset(corpus + "Z!", name="small", source="", provenance="", source_sha256="")
    assert open_run(run.folder).dataset().metadata.version == prepared.metadata.version


def test_everything_lives_under_the_home(prepared):
    run = train(prepared, "BigramLM")
    assert run.folder.parent == home.runs() == Path(os.environ["DRAKEGPT_HOME"]) / "runs"


@pytest.mark.parametrize("line", ["garbage", "[]", "{}", '{"event": "evaluation"}', "3"])
def test_damaged_metrics_are_named(prepared, line):
    run = train(prepared, "BigramLM")
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        _ = open_run(run.folder).evaluations


def test_training_checks_the_tokens_it_is_given(prepared):
    import numpy as np

    array = np.load(prepared.folder / "train.npy")
    array[5] ^= 1
    np.save(prepared.folder / "train.npy", array)
    with pytest.raises(DrakeGPTError, match="another checksum"):
        train(prepared, "BigramLM")


def test_data_of_another_tokenizer_are_refused(prepared):
    run = create_run(resolve("BigramLM", "default", "small", {"iters": 2}), prepared)
    other = CharTokenizer("".join(sorted({*prepared.tokenizer.characters, "?"})))
    (run.folder / "tokenizer.json").write_text(other.to_json(), encoding="utf-8")
    with pytest.raises(RunError, match="prepared with another tokenizer"):
        open_run(run.folder).dataset()


def test_a_run_that_cannot_be_made_whole_leaves_its_name_free(prepared, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    config = resolve("BigramLM", "default", prepared.name)
    with pytest.raises(OSError, match="No space"):
        create_run(config, prepared, "r", fill=full)
    assert list(home.runs().iterdir()) == []
    assert create_run(config, prepared, "r").name == "r"


@pytest.mark.parametrize("left", [(), ("run.json",), ("config.toml",), ("checkpoints",)])
def test_what_is_left_of_a_run_is_listed_removable_and_its_name_is_free_then(
    drakegpt, prepared, home, left
):
    run = train(prepared, "BigramLM", "r")
    for path in list(run.folder.iterdir()):
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert drakegpt("runs", "list", "--json").json["runs"][0]["state"] == "damaged"
    refused = drakegpt("train", "BigramLM", "--iters", 2, "--name", "r")
    assert refused.code == 2
    assert "not a whole run" in refused.err
    assert "drakegpt runs remove r" in refused.err
    assert drakegpt("runs", "remove", "r", "-y").code == 0
    assert not (home / "runs" / "r").exists()
    assert drakegpt("train", "BigramLM", "--iters", 2, "--name", "r", "-q").code == 0


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
def test_one_odd_run_is_one_odd_row(drakegpt, prepared, line):
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset_version", "../../x"), ("dataset_version", "A" * 64), ("created_at", 7),
        ("final_norm", "yes"), ("packed", {"bits": "9", "trained": True, "from": "r"}),
        ("packed", {"bits": "8", "trained": 1, "from": "r"}), ("packed", []), ("sweep", ["s"]),
        ("packed", {"bits": ["8"], "trained": True, "from": "r"}), ("imported_from", 3),
    ],
)  # fmt: skip
def test_what_run_json_cannot_say_is_damage(prepared, name, value):
    run = train(prepared, "BigramLM", "r")
    info = json.loads((run.folder / "run.json").read_text()) | {name: value}
    (run.folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match="not a whole run"):
        open_run(run.folder)


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "r"), ("generate", "r", "-n", "3"), ("export", "packed", "r"),
        ("train", "--resume", "r", "--iters", "9"), ("compare",),
        ("train", "TransformerLM", "--embedding-dim", "16", "--init-from", "r", "--iters", "2"),
    ],
)  # fmt: skip
def test_a_shape_that_is_not_that_of_the_weights_is_a_sentence_everywhere(
    drakegpt, prepared, command
):
    sizes = {"embedding_dim": 8, "num_heads": 2, "num_layers": 1, "context_length": 4}
    run = train(prepared, "TransformerLM", "r", **sizes)
    text = (
        (run.folder / "config.toml").read_text().replace("embedding_dim = 8", "embedding_dim = 16")
    )
    (run.folder / "config.toml").write_text(text)
    sizes = [w for n, v in sizes.items() if n != "embedding_dim" for w in (f"--{n}", str(v))]
    sizes = [word.replace("_", "-") for word in sizes] if "--init-from" in command else []
    told = drakegpt(*command, *sizes)
    assert told.code in (1, 2), told.out
    assert "Error: " in told.err
    assert "Traceback" not in told.err
    assert "fit" in told.err or "cannot begin" in told.err


def test_the_best_run_whose_weights_are_whole_is_taken(drakegpt, prepared):
    for name, iters in (("good", 4), ("better", 30)):
        train(prepared, "BigramLM", name, iters=iters, max_lr=0.05, base_lr=0.01)
    for file in (home.runs() / "better" / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"")
    told = drakegpt("eval", "--json")
    assert told.code == 0, told.err
    assert told.json["run"].endswith("good")
    assert "Passing over better" in drakegpt("generate", "-n", 3).err


def test_a_list_reads_each_file_of_a_run_once(drakegpt, prepared, monkeypatch):
    """Thousands of runs are listed in a second or two."""
    for name in ("a", "b"):
        train(prepared, "BigramLM", name)
    drakegpt("runs")
    for name in ("a", "b"):  # as if another process had written them
        for file in ("run.json", "config.toml", "tokenizer.json", "metrics.jsonl"):
            os.utime(home.runs() / name / file)
    opened = []
    before = Path.open

    def counted(path, *arguments, **how):
        opened.append(path)
        return before(path, *arguments, **how)

    monkeypatch.setattr(Path, "open", counted)
    listed = drakegpt("runs")
    assert listed.code == 0
    of_runs = [path for path in opened if home.runs() in path.parents]
    assert sorted(set(of_runs)) == sorted(of_runs)
    assert {path.name for path in of_runs} == {
        "run.json", "config.toml", "tokenizer.json", "metrics.jsonl"
    }  # fmt: skip


def test_runs_are_read_anew_only_where_a_file_has_changed(drakegpt, prepared, monkeypatch):
    """A comparison asks for all runs several times."""
    for name in ("a", "b"):
        train(prepared, "BigramLM", name)
    list_runs()
    opened = []
    before = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *a, **k: opened.append(path) or before(path, *a, **k)
    )
    list_runs()[0].info["created_at"] = "not what the next one finds"
    assert list_runs()[0].info["created_at"] != "not what the next one finds"
    assert opened == []
    os.utime(home.runs() / "b" / "run.json")
    assert len(list_runs()) == 2
    assert {path.parent.name for path in opened} == {"b"}


def test_a_loss_too_large_for_a_float_is_damage(drakegpt, prepared):
    run, _ = train(prepared, "BigramLM", "a")
    file = run.folder / "metrics.jsonl"
    first, *others = file.read_text().splitlines()
    line = json.loads(first) | {"val_loss": 10**400}
    file.write_text("\n".join([json.dumps(line), *others, ""]))
    listed = drakegpt("runs")
    assert listed.code == 0, listed.err
    assert "metrics.jsonl of a is damaged" in listed.err


def test_many_runs_are_shown_as_few_are(drakegpt, prepared):
    """They go through the table in one piece."""
    run = train(prepared, "BigramLM", "a")
    one = drakegpt("runs").out.splitlines()
    for name in ("b", "c"):
        shutil.copytree(run.folder, run.folder.with_name(name))
    many = drakegpt("runs").out.splitlines()
    assert [line.replace("│ a", "│ b") for line in one[3:4]] == many[4:5]
    assert len(many) == len(one) + 2
    narrow = drakegpt("runs", COLUMNS=30)
    assert narrow.code == 0


@pytest.mark.parametrize(
    "line",
    ['seed = 7\nseed = 8', "seed = null", "seed = 7 = 8", "[seed]", "seed = [1]", "seed = NaN",
     'seed = 7, "iters": 3'],
)  # fmt: skip
def test_settings_that_only_look_like_ours_are_read_as_toml(prepared, line):
    run = train(prepared, "BigramLM", "a")
    file = run.folder / "config.toml"
    lines = [each for each in file.read_text().splitlines() if not each.startswith("seed")]
    file.write_text("\n".join([*lines, line]) + "\n")
    with pytest.raises(RunError, match="not a whole run"):
        open_run(run.folder)


def no_weights(run):
    for file in (run.folder / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"")


def other_shape(run):
    file = run.folder / "config.toml"
    file.write_text(file.read_text().replace("embedding_dim = 32", "embedding_dim = 64"))


def other_tokenizer(run):
    other = CharTokenizer(run.tokenizer.characters[:-1] + "~")
    (run.folder / "tokenizer.json").write_text(other.to_json(), encoding="utf-8")


@pytest.mark.parametrize("damage", [no_weights, other_shape, other_tokenizer])
def test_a_comparison_leaves_a_damaged_run_out_and_says_what_is_wrong(drakegpt, prepared, damage):
    train(prepared, "BigramLM", "good")
    run = train(prepared, "MultiHeadAttentionLM", "odd")
    damage(run)
    shown = drakegpt("compare")
    assert shown.code == 0, shown.err
    assert "odd is damaged and left out. " in shown.err
    compared = drakegpt("compare", "--json").json
    assert [row["model"] for row in compared["rows"]] == ["BigramLM"]
    (odd,) = compared["damaged"]
    assert odd["run"] == "odd"
    assert odd["problem"]


def test_what_was_trained_beyond_the_last_whole_checkpoint_is_not_counted(drakegpt, prepared):
    run = train(prepared, "BigramLM", "r", iters=8, save_interval=4)
    run.last_checkpoint().weights.write_bytes(b"")
    compared = drakegpt("compare", "--json")
    assert compared.json["rows"][0]["iterations"] == 4
    assert compared.err.count("Going back to iteration 4") == 1
    evaluated = drakegpt("eval", "r")
    assert "after 4 iterations" in evaluated.out


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
