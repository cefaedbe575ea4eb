"""What Hugging Face's own library computes from an exported folder is what drakegpt computes."""

import json

import pytest
import torch
from exported import CPU, ODD, compute_logits, take_tokens, write_greedily
from torch import nn

from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.errors import RunError, UsageError
from drakegpt.export.architectures import fold_into_head, interleave_heads
from drakegpt.export.tokenizer_files import describe_tokenizer
from drakegpt.export.transformers_folder import FILES, export_transformers
from drakegpt.models.registry import MODELS

ARCHITECTURES = [
    ({"model": "TransformerLM"}, "GPT2LMHeadModel"),
    ({"model": "TransformerLM", "positions": "rotary"}, "GPTNeoXForCausalLM"),
    ({"model": "GPT1LM"}, "GPT2LMHeadModel"),
    ({"model": "GPT1LM", "tie_embeddings": True}, "GPT2LMHeadModel"),
    ({"model": "GPT1LM", "positions": "rotary"}, "GPTNeoXForCausalLM"),
    ({"model": "GPT1LM", "positions": "rotary", "tie_embeddings": True}, "GPTNeoXForCausalLM"),
    ({"model": "GPT1LM", "tokenizer": "bpe"}, "GPT2LMHeadModel"),
    ({"model": "TransformerLM", "tokenizer": "bpe", "num_heads": 4}, "GPT2LMHeadModel"),
]
IDS = ["-".join(map(str, case.values())) for case, _ in ARCHITECTURES]


def read(folder):
    """The model and the tokenizer, as anybody loads them."""
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    return model, read_tokenizer(folder)


def read_tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "architecture"), ARCHITECTURES, ids=IDS)
def test_transformers_computes_the_same_logits_and_writes_the_same_text(
    trained, tmp_path, no_warnings, case, architecture
):
    run = trained(**case)
    export_transformers(run, tmp_path / "out")
    model, tokenizer = read(tmp_path / "out")
    assert type(model).__name__ == architecture
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    tokens = take_tokens(run)
    expected = compute_logits(run, tokens)
    with torch.no_grad():
        got = model(tokens).logits
    assert expected.std() > 0.5  # it was trained
    assert torch.allclose(got, expected, rtol=0, atol=1e-4)
    start = tokens[:, :50]
    written = model.generate(start, do_sample=False, max_new_tokens=100, eos_token_id=None)
    ours = write_greedily(run, start)
    assert written[0, 50:].tolist() == ours
    assert len(set(ours)) > 4
    text = run.tokenizer.decode([*start[0].tolist(), *ours])
    assert tokenizer.decode(written[0]) == text


@pytest.mark.slow
def test_a_text_without_a_prompt_begins_as_in_drakegpt(trained, tmp_path):
    for case in ({}, {"tokenizer": "bpe", "model": "GPT1LM"}):
        run = trained(**case)
        export_transformers(run, tmp_path / "out", replace=True)
        model, _ = read(tmp_path / "out")
        written = model.generate(do_sample=False, eos_token_id=None)[0].tolist()
        assert len(written) == 256  # the context
        start = torch.tensor([[run.tokenizer.end or 0]])
        assert written == [int(start), *write_greedily(run, start, 255)]


@pytest.mark.slow
def test_the_example_on_the_card_works(trained, tmp_path, monkeypatch, capsys):
    for case in ({"odd": True}, {"tokenizer": "bpe", "model": "GPT1LM"}):
        export_transformers(trained(**case), tmp_path / "DIR", replace=True)
        card = (tmp_path / "DIR" / "README.md").read_text(encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        torch.manual_seed(1)
        given = {}
        exec(card.partition("```python\n")[2].partition("```")[0], given)
        written = given["text"][0]
        assert given["start"].shape == (1, 1)
        assert capsys.readouterr().out == given["tokenizer"].decode(written) + "\n"


# --- The arithmetic -----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [16, 63, 384])
def test_a_folded_head_scores_as_the_norm_and_the_head_did(width):
    """Against float64, as exactly as float32 does it without folding; a large shift does not."""
    torch.manual_seed(width)
    norm, head = nn.LayerNorm(width), nn.Linear(width, 50)
    for tensor in (norm.weight, norm.bias, head.weight, head.bias):
        nn.init.normal_(tensor, std=1.5)
    x = 4 * torch.randn(1000, width) + 3
    exact = head.double()(norm.double()(x.double()))
    head.float(), norm.float()

    def error(logits):
        return (logits - exact).abs().max().item() / exact.abs().max().item()

    def folded(shift):
        bare = nn.LayerNorm(width)
        nn.init.constant_(bare.bias, shift)
        return error(bare(x) @ fold_into_head(norm, head, shift).T)

    with torch.no_grad():
        assert folded(1.0) < 4 * error(head(norm(x))) + 1e-6
        assert folded(1000.0) > 10 * folded(1.0)
        in_double = fold_into_head(norm.double(), head.double())
        bare = nn.LayerNorm(width, dtype=torch.float64)
        nn.init.ones_(bare.bias)
        assert error(bare(x.double()) @ in_double.T) < 1e-12


def test_rows_are_interleaved_by_head():
    """Two heads of two rows each: q0 q0 q1 q1 k0 ... becomes q0 q0 k0 k0 v0 v0 q1 ..."""
    rows = torch.arange(12)[:, None]
    assert interleave_heads(rows, 2).flatten().tolist() == [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]


# --- Tokenizers ---------------------------------------------------------------------------------


@pytest.mark.slow  # the import of transformers
@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_odd_texts_are_encoded_as_in_drakegpt_and_decoded_exactly(trained, tmp_path, kind):
    run = trained(tokenizer=kind, odd=True)
    export_transformers(run, tmp_path / "out")
    tokenizer = read_tokenizer(tmp_path / "out")
    assert len(tokenizer) == run.tokenizer.vocab_size
    for text in (ODD, ODD[::-1], " ", "\n", "\x00", "a  b .", "\u0301", " don 't ."):
        tokens = tokenizer(text)["input_ids"]
        assert tokens == run.tokenizer.encode(text).tolist()
        assert tokenizer.decode(tokens) == text
    for character in getattr(run.tokenizer, "characters", ""):
        assert tokenizer(character)["input_ids"] == run.tokenizer.encode(character).tolist()


@pytest.mark.slow
def test_an_unknown_character_is_an_error_as_in_drakegpt(trained, tmp_path):
    export_transformers(trained(), tmp_path / "out")
    tokenizer = read_tokenizer(tmp_path / "out")
    with pytest.raises(Exception, match="Missing"):
        tokenizer("\u6f22")


def test_half_a_character_is_refused():
    with pytest.raises(UsageError, match=r"half of a character \(U\+D83D\)"):
        describe_tokenizer(CharTokenizer("ab\ud83d"))


# --- What is refused ----------------------------------------------------------------------------


def test_models_without_a_final_norm_are_refused_and_onnx_is_named(trained, tmp_path):
    for model in [*MODELS][:5]:
        with pytest.raises(UsageError, match=rf"{model} without a layer norm.*export onnx"):
            export_transformers(trained(model), tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_few_bits_are_refused_because_logits_would_differ(trained, tmp_path):
    """Weights are the same as floats, but drakegpt rounds activations too: that is visible."""
    original, packed = trained(), trained(packed="8")
    with pytest.raises(UsageError, match="packed from") as refused:
        export_transformers(packed, tmp_path / "out")
    assert original.name in str(refused.value)
    with pytest.raises(UsageError, match="rounds its activations.*export onnx"):
        export_transformers(trained(bits="1.58"), tmp_path / "out")
    tokens = take_tokens(packed)
    unpacked = packed.load_model(CPU)
    for name, layer in list(unpacked.named_modules()):
        if hasattr(layer, "codes"):
            linear = nn.Linear(layer.codes.shape[1], len(layer.codes), bias=False)
            linear.weight.data = layer.codes.float() * layer.scales[:, None]
            linear.bias = layer.bias
            unpacked.set_submodule(name, linear)
    with torch.no_grad():
        difference = (unpacked(tokens) - compute_logits(packed, tokens)).abs().max()
    assert difference > 1e-2  # a hundred times what the other exports are allowed


def test_weights_that_are_not_finite_are_refused(trained, tmp_path, monkeypatch):
    run = trained()
    model = run.load_model(CPU)
    model.blocks[1].projection.bias.data[0] = float("nan")
    monkeypatch.setattr(type(run), "load_model", lambda *_, **__: model)
    with pytest.raises(RunError, match=r"not finite, in blocks\.1\.projection\.bias"):
        export_transformers(run, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_the_same_run_gives_the_same_bytes(trained, tmp_path):
    for name in ("one", "two"):
        export_transformers(trained(), tmp_path / name)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert json.loads((tmp_path / "one" / "config.json").read_text())["drakegpt"]["version"]
