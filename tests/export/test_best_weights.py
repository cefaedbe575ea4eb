"""`--best`: the weights of the best evaluation leave drakegpt, and the card says that of them."""

import json

import onnx
import onnxruntime
import pytest
import torch
from exported import CPU, take_tokens
from learning import prepare, small_text, train
from transformers import AutoModelForCausalLM

import drakegpt as dg
from drakegpt.errors import RunError
from drakegpt.export.model_card import collect_facts
from drakegpt.runs.brief_originality import judge_briefly, measure_people
from drakegpt.runs.lookup import find_run
from drakegpt.runs.packing import pack_run
from drakegpt.runs.scores import score_run
from drakegpt.runs.start import start_run
from drakegpt.trained_run import to_trained_run


@pytest.fixture
def run():
    """A run whose loss rises at its end: the rate is far too high for its last evaluations."""
    settings = {
        "embedding_dim": 16, "num_layers": 1, "num_heads": 2, "iters": 40, "eval_interval": 10,
        "recipe": "original", "max_lr": 1.0, "warmup_iters": 40,
    }  # fmt: skip
    run = train(prepare(small_text(), "small"), "TransformerLM", **settings)
    assert run.ending["best_iteration"] < 40
    return run


def compute(run, tokens, *, best):
    with torch.no_grad():
        return run.load_model(CPU, best=best)(tokens)


def test_the_best_weights_are_written(drakegpt, run, tmp_path):
    tokens = take_tokens(run, run.model_config.context_length)
    best, last = (compute(run, tokens, best=best) for best in (True, False))
    assert (best - last).abs().max() > 0.1
    folder, file = tmp_path / "folder", tmp_path / "model.onnx"
    for form, place in (("transformers", folder), ("onnx", file)):
        shown = drakegpt("export", form, run.name, place, "--best")
        assert shown.code == 0, shown.err
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert (loaded(tokens).logits - best).abs().max() < 1e-4
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"tokens": tokens.numpy()})
    assert (torch.from_numpy(logits) - best[:, -1]).abs().max() < 1e-4


def test_the_card_is_of_the_best_weights(run, tmp_path):
    place, at = tmp_path / "model.onnx", run.ending["best_iteration"]

    def export():
        dg.load_run(run.name).export_onnx(place, best=True, replace=True)
        metadata = {each.key: each.value for each in onnx.load(place).metadata_props}
        return metadata["card"], float(metadata["validation_loss"])

    card, loss = export()
    estimates = {line["iteration"]: line["val_loss"] for line in run.evaluations}
    assert loss == pytest.approx(estimates[at], abs=1e-6)
    assert f"Its weights are those of its best evaluation, at iteration {at}." in card
    told = f"Not measured for these weights: `drakegpt eval {run.name} --originality --best`"
    assert told in " ".join(card.split())
    scores = score_run(run)
    assert scores.best_val.loss != scores.val.loss
    _, loss = export()
    assert loss == pytest.approx(scores.best_val.loss, abs=1e-6)


def test_where_the_last_weights_are_the_best_their_copying_is_told(run):
    longer = train(run.load_dataset(), "BigramLM", iters=20, eval_interval=10)
    assert longer.ending["best_iteration"] == 20
    judge_briefly(longer, measure_people(longer.load_dataset()), CPU)
    judge_briefly(run, measure_people(run.load_dataset()), CPU)
    assert collect_facts(longer, best=True).originality
    assert collect_facts(run).originality
    assert not collect_facts(run, best=True).originality


def test_the_library_writes_what_the_command_writes(drakegpt, run, tmp_path):
    loaded = dg.load_run(run.name)
    size = loaded.export_onnx(tmp_path / "a.onnx", licence="MIT")
    shown = drakegpt("export", "onnx", run.name, tmp_path / "b.onnx", "--licence", "MIT", "--json")
    assert shown.json["bytes"] == size
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    sizes = loaded.export_transformers(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "config.json").read_text())["model_type"] == "gpt2"
    shown = drakegpt("export", "transformers", run.name, tmp_path / "b", "--json")
    assert shown.json["bytes"] == sizes


def test_a_run_without_best_weights_says_so(run, tmp_path):
    packed = dg.load_run(pack_run(run, "8").name)
    with pytest.raises(RunError, match="has no weights but its last ones") as refused:
        packed.export_onnx(tmp_path / "model.onnx", best=True)
    assert refused.value.fix == "Leave --best out."
    assert list(tmp_path.glob("*.onnx")) == []


def test_a_run_that_is_not_finished_is_not_written(run, tmp_path):
    begun = start_run(run.config, run.load_dataset())
    for export in ("export_onnx", "export_transformers"):
        with pytest.raises(RunError, match="is not finished") as refused:
            getattr(to_trained_run(begun), export)(tmp_path / "model")
        assert f"--resume {begun.name}" in refused.value.fix
    assert find_run(begun.name).name == begun.name
