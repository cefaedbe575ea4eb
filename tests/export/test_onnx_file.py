"""What ONNX Runtime computes from an exported file is what drakegpt computes."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import tokenizers
import torch
from exported import CPU, ODD, compute_logits, take_tokens, write_greedily

from drakegpt.config import resolve
from drakegpt.errors import DrakeGPTError, UsageError
from drakegpt.export import onnx_file
from drakegpt.export.onnx_file import export_onnx
from drakegpt.export.transformers_folder import export_transformers
from drakegpt.models.bitlinear import quantize_activations
from drakegpt.models.packed_linear import PackedLinear
from drakegpt.models.reference import ReferenceLM
from drakegpt.models.registry import MODELS
from drakegpt.runs.upstream import import_original

FULL = [
    *({"model": model} for model in MODELS),
    {"model": "TransformerLM", "positions": "rotary"},
    {"model": "GPT1LM", "positions": "rotary", "tie_embeddings": True},
    {"model": "BlocksLM", "positions": "rotary"},
    {"model": "GPT1LM", "tokenizer": "bpe"},
]
FEW_BITS = [
    {"model": "TransformerLM", "bits": "1.58"},
    {"model": "GPT1LM", "bits": "1", "positions": "rotary"},
    {"model": "MultiHeadAttentionLM", "bits": "1.58"},
    {"model": "TransformerLM", "packed": "8"},
    {"model": "TransformerLM", "packed": "1.58"},
]


def name(case):
    return "-".join(map(str, case.values()))


def read(path):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run_session(session, tokens):
    (logits,) = session.run(None, {"tokens": tokens.numpy()})
    return torch.from_numpy(logits)


def export_and_compare(run, path):
    """Export a run, check its greedy text, and return the largest difference at 200 positions.

    The file gives the logits of the last position, of any length up to the context.
    """
    assert export_onnx(run, path) == path.stat().st_size
    session = read(path)
    tokens = take_tokens(run)
    expected = compute_logits(run, tokens)[0]
    assert expected.std() > 0.3  # it was trained
    got = torch.cat([run_session(session, tokens[:, :length]) for length in range(1, 201)])
    text = tokens[:, :50]
    for _ in range(100):
        text = torch.cat([text, run_session(session, text).argmax(1, keepdim=True)], 1)
    assert text[0, 50:].tolist() == write_greedily(run, tokens[:, :50])
    return (got - expected).abs().amax(1)


@pytest.mark.parametrize("case", FULL, ids=name)
def test_onnx_runtime_computes_the_same_logits_and_writes_the_same_text(trained, tmp_path, case):
    assert export_and_compare(trained(**case), tmp_path / "model.onnx").max() < 1e-4


@pytest.mark.parametrize("case", FEW_BITS, ids=name)
def test_few_bits_differ_only_where_an_activation_lies_between_two_codes(trained, tmp_path, case):
    """There the last bit of a float decides how it is rounded, and that is each library's own."""
    run = trained(**case)
    difference = export_and_compare(run, tmp_path / "model.onnx")
    metadata = read(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert "the last bit of a float decides" in metadata["card"]
    undecided = find_undecided(run, take_tokens(run))
    assert difference[~undecided].max() < 1e-4
    assert difference.median() < 1e-4
    assert difference.max() < 0.1


def find_undecided(run, tokens):
    """Which positions depend on an activation within 1e-4 of the middle of two codes: (T,)."""
    model, nearest = run.load_model(CPU), torch.ones(tokens.shape[1])

    def look(layer, inputs):
        x = layer.norm(inputs[0])
        codes = x * quantize_activations(x)[1]
        distance = (codes - codes.floor() - 0.5).abs().amin((0, 2))
        nearest.copy_(torch.minimum(nearest, distance))

    for layer in model.modules():
        if isinstance(layer, PackedLinear):
            layer.register_forward_pre_hook(look)
    with torch.no_grad():
        model(tokens)
    return nearest.cummin(0).values < 1e-4


def test_a_model_of_the_original_without_its_final_norm_goes_to_onnx_alone(prepared, tmp_path):
    """Its checkpoints never applied theirs; on random weights, since nothing here trains one."""
    config = resolve("TransformerLM", "default", prepared.name)
    reference = ReferenceLM(config.model_settings(prepared.tokenizer.vocab_size))
    torch.save(reference.state_dict(), tmp_path / "old.pt")
    run = import_original(tmp_path / "old.pt", config, prepared, "old")
    with pytest.raises(UsageError, match="without a layer norm before its head"):
        export_transformers(run, tmp_path / "out")
    export_onnx(run, tmp_path / "model.onnx")
    tokens = take_tokens(run, 8)
    expected = compute_logits(run, tokens)[:, -1]
    got = run_session(read(tmp_path / "model.onnx"), tokens)
    assert torch.allclose(got, expected, rtol=0, atol=1e-4)


def test_texts_in_a_batch_are_computed_side_by_side(trained, tmp_path):
    run = trained("GPT1LM", positions="rotary")
    export_onnx(run, tmp_path / "model.onnx")
    session = read(tmp_path / "model.onnx")
    tokens = take_tokens(run).view(4, 50)
    alone = torch.cat([run_session(session, row[None]) for row in tokens])
    assert torch.allclose(run_session(session, tokens), alone, rtol=0, atol=1e-5)
    assert run_session(session, tokens).shape == (4, run.tokenizer.vocab_size)


def test_a_text_longer_than_the_context_is_an_error(trained, tmp_path):
    for case in ({}, {"positions": "rotary"}):
        export_onnx(trained(**case), tmp_path / "model.onnx", replace=True)
        session = read(tmp_path / "model.onnx")
        assert run_session(session, torch.zeros(1, 256, dtype=torch.int64)).isfinite().all()
        with pytest.raises(Exception, match=r"256.*257|257.*256"):
            run_session(session, torch.zeros(1, 257, dtype=torch.int64))


def test_few_bits_are_stored_as_bytes(trained, tmp_path):
    wide = {"embedding_dim": 64, "iters": 2, "eval_interval": 2}
    sizes = [
        export_onnx(trained(**wide, **bits), tmp_path / f"{count}.onnx")
        for count, bits in enumerate(({}, {"packed": "8"}))
    ]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_the_metadata_has_the_tokenizer_and_the_card(trained, tmp_path, kind):
    run = trained(tokenizer=kind, odd=True)
    export_onnx(run, tmp_path / "model.onnx", licence="CC  BY\n4.0")
    metadata = read(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    tokenizer = tokenizers.Tokenizer.from_str(metadata["tokenizer"])
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode(ODD).ids == run.tokenizer.encode(ODD).tolist()
    assert tokenizer.decode(tokenizer.encode(ODD).ids, skip_special_tokens=False) == ODD
    assert json.loads(metadata["model"])["context_length"] == 256
    assert metadata["licence"] == "CC BY 4.0"
    assert metadata["dataset"] == run.config.data
    assert float(metadata["validation_loss"]) == pytest.approx(
        run.last_evaluation["val_loss"], abs=1e-6
    )
    assert "weights of a small model are partly its text" in metadata["card"]


def test_the_example_on_the_card_works(trained, tmp_path, monkeypatch):
    run = trained()
    export_onnx(run, tmp_path / "FILE.onnx")
    card = read(tmp_path / "FILE.onnx").get_modelmeta().custom_metadata_map["card"]
    monkeypatch.chdir(tmp_path)
    given = {}
    exec(card.partition("```python\n")[2].partition("```")[0], given)
    start = torch.tensor([[0]])
    assert np.allclose(given["logits"], compute_logits(run, start)[0], atol=1e-4)


def test_the_same_run_gives_the_same_bytes(trained, tmp_path):
    for each in ("one", "two"):
        export_onnx(trained("GPT1LM", positions="rotary"), tmp_path / each)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# --- What is refused ----------------------------------------------------------------------------


def test_a_missing_library_is_a_sentence_with_the_command_that_adds_it(
    trained, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DrakeGPTError, match=r'pip install "drakegpt\[onnx\]"'):
        export_onnx(trained(), tmp_path / "model.onnx")
    assert not list(tmp_path.glob("*model*"))


def test_a_model_too_large_for_one_file_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    with pytest.raises(UsageError, match="more than 2 GiB"):
        export_onnx(trained(), tmp_path / "model.onnx")


def test_a_model_of_ones_own_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "is_built_in", lambda _: False)
    with pytest.raises(UsageError, match="a model of your own"):
        export_onnx(trained(), tmp_path / "model.onnx")
