import json

import pytest
import torch

from drakegpt import paths
from drakegpt.config import resolve
from drakegpt.data.characters import CharTokenizer
from drakegpt.errors import DrakeGPTError, RunError, UsageError
from drakegpt.training.checkpoint import list_checkpoints, load_weights
from drakegpt.training.recorder import Recorder
from drakegpt.training.run import all_runs, create_run, open_run
from drakegpt.training.trainer import Evaluation

CPU = torch.device("cpu")


def train(prepared, model="MultiHeadAttentionLM", name=None, **settings):
    settings = {"iters": 6, "eval_interval": 2, "eval_iters": 2, **settings}
    run = create_run(resolve(model, "default", prepared.name, settings), prepared, name)
    with Recorder(run) as recorder:
        reports = list(recorder.reports())
    return run, [report for report in reports if isinstance(report, Evaluation)]


def test_a_run_remembers_everything(prepared):
    run, evaluations = train(prepared)
    again = open_run(run.folder)
    assert again.config == run.config
    assert again.finished
    assert [e["val_loss"] for e in again.evaluations] == [e.val_loss for e in evaluations]
    assert again.dataset().metadata == prepared.metadata
    assert again.last_checkpoint().iteration == 6


def test_weights_say_what_they_are(prepared):
    run, evaluations = train(prepared)
    _, metadata = load_weights(run.folder / "best.safetensors")
    best = min(evaluations, key=lambda e: e.val_loss)
    assert metadata["iteration"] == str(best.iteration)
    assert json.loads(metadata["model"])["model"] == "MultiHeadAttentionLM"
    assert json.loads(metadata["tokenizer"])["characters"] == run.tokenizer.characters
    assert metadata["dataset_version"] == prepared.metadata.version


def test_no_run_overwrites_another(prepared):
    first, _ = train(prepared)
    second, _ = train(prepared)
    assert first.folder != second.folder
    train(prepared, name="mine")
    with pytest.raises(UsageError, match="'mine' already"):
        train(prepared, name="mine")
    assert len(all_runs()) == 3


@pytest.mark.parametrize("name", ["a/b", "..", "", ".hidden", "transformerlm"])
def test_names_that_are_paths_are_refused(prepared, name):
    with pytest.raises(UsageError, match="cannot name a run"):
        train(prepared, name=name)


def test_a_run_without_a_checkpoint_is_not_offered(prepared):
    create_run(resolve("BigramLM", "default", prepared.name), prepared)
    assert all_runs() == []


@pytest.mark.parametrize("file", ["config.toml", "run.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"a": 1}', b'model = "X"\n'])
def test_damaged_runs_are_named_not_crashed_on(prepared, file, content):
    run, _ = train(prepared, "BigramLM")
    (run.folder / file).write_bytes(content)
    with pytest.raises(RunError, match=run.name):
        open_run(run.folder)
    assert all_runs() == []


def test_damaged_weights_are_not_used(prepared):
    run, _ = train(prepared, "BigramLM")
    for checkpoint in list_checkpoints(run.folder / "checkpoints"):
        content = bytearray(checkpoint.weights.read_bytes())
        content[-1] ^= 1
        checkpoint.weights.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        run.load_model(CPU)


def test_half_a_line_in_the_metrics_is_passed_over(prepared):
    run, evaluations = train(prepared, "BigramLM")
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "evalua')
    assert len(open_run(run.folder).evaluations) == len(evaluations)


def test_a_run_keeps_its_dataset_version(prepared, corpus):
    from drakegpt.data import dataset

    run, _ = train(prepared, "BigramLM")
    dataset.prepare(corpus + "Z!", name="small", source="", provenance="", source_sha256="")
    assert open_run(run.folder).dataset().metadata.version == prepared.metadata.version


def test_everything_lives_under_the_home(prepared, home):
    run, _ = train(prepared, "BigramLM")
    assert run.folder.parent == paths.runs() == home / "runs"


@pytest.mark.parametrize("line", ["garbage", "[]", "{}", '{"event": "evaluation"}', "3"])
def test_damaged_metrics_are_named(prepared, line):
    run, _ = train(prepared, "BigramLM")
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


def test_the_last_evaluation_is_read_without_those_before_it(prepared):
    run, _ = train(prepared, "BigramLM")
    file = run.folder / "metrics.jsonl"
    assert run.last_evaluation == run.evaluations[-1]
    first = file.read_text().splitlines()[0]
    file.write_text("garbage\n" + (first + "\n") * 100 + '{"event": "eval')
    assert run.last_evaluation == json.loads(first)
    file.write_text("")
    assert run.last_evaluation == {}
    file.unlink()
    assert run.last_evaluation == {}
