"""Checkpoints in the original's layout, for all six models, and files that are none."""

import pickle

import pytest
import torch

from drakegpt.config import LADDER, resolve
from drakegpt.errors import UsageError
from drakegpt.experiments.agreement import select_runs
from drakegpt.experiments.ladder import compare
from drakegpt.models import reference
from drakegpt.report.samples import sample
from drakegpt.runs.lookup import list_runs
from drakegpt.runs.run import open_run
from drakegpt.runs.scores import score_run
from drakegpt.runs.upstream import import_original

CPU = torch.device("cpu")


def original(prepared, name, size="default"):
    """A model of the original, and the file it would have written, masks and all."""
    torch.manual_seed(5)
    config = resolve(name, size, prepared.name)
    model = reference.ReferenceLM(config.model_settings(prepared.tokenizer.vocab_size), False)
    return config, model.eval()


@pytest.mark.parametrize("name", LADDER)
def test_imported_models_compute_what_the_original_did(prepared, tmp_path, name):
    config, model = original(prepared, name)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    run = import_original(tmp_path / "model.pt", config, prepared, None)
    imported = open_run(run.folder).load_model(CPU)
    tokens = torch.randint(prepared.tokenizer.vocab_size, (16, 8))
    with torch.no_grad():
        assert torch.allclose(imported(tokens), model(tokens), atol=1e-5)


def test_a_scaled_checkpoint(prepared, tmp_path):
    config, model = original(prepared, "TransformerLM", "scaled")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    run = import_original(tmp_path / "model.pt", config, prepared, None)
    tokens = torch.randint(prepared.tokenizer.vocab_size, (1, 256))
    with torch.no_grad():
        assert torch.allclose(run.load_model(CPU)(tokens), model(tokens), atol=1e-5)


def test_the_final_norm_matters(prepared, tmp_path):
    """Applied, as it never was, it would give other logits: the test above can fail."""
    _, model = original(prepared, "TransformerLM")
    tokens = torch.randint(prepared.tokenizer.vocab_size, (4, 8))
    with torch.no_grad():
        without = model(tokens)
        model.final_norm = True
        assert not torch.allclose(model(tokens), without, atol=1e-2)


def test_an_imported_run_can_be_scored_compared_and_generated_from(prepared, tmp_path):
    config, model = original(prepared, "TransformerLM")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    run = import_original(tmp_path / "model.pt", config, prepared, "old")
    assert score_run(run).val.tokens == prepared.metadata.val_tokens
    (row,) = compare(prepared, select_runs(prepared)).rows
    assert (row.runs, row.seconds, row.iterations) == (("old",), None, None)
    assert len(sample(run, 20)) == 20
    assert run.info["imported_from"].endswith("model.pt")


def test_what_does_not_fit_is_named(prepared, tmp_path):
    config, model = original(prepared, "BlocksLM")
    good = model.state_dict()
    query = "blocks.0.sa_head.heads.3.query.weight"
    cases = {
        "lacks lm_head.bias": {k: v for k, v in good.items() if k != "lm_head.bias"},
        "has extra.weight": good | {"extra.weight": torch.zeros(2)},
        "lm_head.weight has shape (3, 3)": good | {"lm_head.weight": torch.zeros(3, 3)},
        f"lacks {query}": {k: v for k, v in good.items() if k != query},
        f"{query} has shape (3,)": good | {query: torch.zeros(3)},
        f"{query} has shape (9, 7)": good | {query: torch.zeros(9, 7)},
    }
    for words, state in cases.items():
        torch.save(state, tmp_path / "model.pt")
        with pytest.raises(UsageError) as caught:
            import_original(tmp_path / "model.pt", config, prepared, None)
        assert words in str(caught.value), caught.value
    torch.save(original(prepared, "BigramLM")[1].state_dict(), tmp_path / "model.pt")
    with pytest.raises(UsageError, match="not of a BlocksLM"):
        import_original(tmp_path / "model.pt", config, prepared, None)
    assert list_runs(with_checkpoint=False) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_before_anything_is_made(
    drakegpt, prepared, tmp_path, value
):
    _, model = original(prepared, "BlocksLM")
    state = model.state_dict()
    state["blocks.1.sa_head.heads.2.key.weight"][1, 2] = value
    torch.save(state, tmp_path / "model.pt")
    refused = drakegpt("runs", "import", tmp_path / "model.pt", "--model", "BlocksLM")
    assert refused.code == 2
    assert "holds weights that are not finite" in refused.err
    assert list_runs(with_checkpoint=False) == []
    # What the conversion leaves out does not matter.
    state["blocks.1.sa_head.heads.2.key.weight"][1, 2] = 0.0
    state["blocks.1.sa_head.heads.2.tril"] = torch.full((8, 8), value)
    torch.save(state, tmp_path / "model.pt")
    done = drakegpt("runs", "import", tmp_path / "model.pt", "--model", "BlocksLM")
    assert done.code == 0, done.err


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a checkpoint"),
        lambda path: path.write_bytes(pickle.dumps({"a": 1})),
        lambda path: torch.save(Evil(), path),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"a": 1}, path),
        lambda path: path.write_bytes(pickle.dumps(Evil())),
    ],
)
def test_files_that_are_no_checkpoints_are_refused_and_never_run(prepared, tmp_path, write):
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(UsageError, match=r"model\.pt"):
        import_original(path, original(prepared, "BigramLM")[0], prepared, None)
    assert list_runs(with_checkpoint=False) == []


def test_a_missing_file_is_named(prepared, tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        import_original(tmp_path / "none.pt", original(prepared, "BigramLM")[0], prepared, None)


def test_the_command(drakegpt, prepared, tmp_path):
    _, model = original(prepared, "ResidualBlocksLM")
    torch.save(model.state_dict(), tmp_path / "old.pt")
    done = drakegpt("runs", "import", tmp_path / "old.pt", "--model", "residualblockslm",
                    "--data", "small", "--name", "old")  # fmt: skip
    assert done.code == 0, done.err
    assert "Imported old.pt as old" in done.out
    assert drakegpt("eval", "old").code == 0
    assert len(drakegpt("generate", "old", "-n", 30, "--json").json["samples"][0]["text"]) == 30
    assert drakegpt("compare").code == 0
    assert "imported" in drakegpt("runs").out
    wrong = drakegpt(
        "runs", "import", tmp_path / "old.pt", "--model", "BigramLM", "--data", "small"
    )
    assert wrong.code == 2
    assert "not of a BigramLM" in wrong.err
