"""How `compare` takes settings: flags, `--set`, the environment, a file."""

import pytest
from program_runs import settings

TINY = ("--iters", 3, "--eval-iters", 1)


def lengths(outcome):
    assert outcome.code == 0, outcome.err
    return {row["model"]: row["iterations"] for row in outcome.json["rows"]}


@pytest.mark.slow
def test_a_flag_goes_before_set_that_before_the_environment_and_that_before_a_file(
    drakegpt, prepared, tmp_path, monkeypatch
):
    for iters in (3, 4, 5):
        drakegpt("train", "BigramLM", "--iters", iters, "--eval-iters", 1, "-q")
    (tmp_path / "c.toml").write_text("iters = 3\n")
    given = ("compare", "--json", "--config", tmp_path / "c.toml")
    assert lengths(drakegpt(*given)) == {"BigramLM": 3}
    monkeypatch.setenv("DRAKEGPT_ITERS", "4")
    assert lengths(drakegpt(*given)) == {"BigramLM": 4}
    assert lengths(drakegpt(*given, "--iters", 5)) == {"BigramLM": 5}
    assert lengths(drakegpt(*given, "--set", "iters=5")) == {"BigramLM": 5}
    monkeypatch.setenv("DRAKEGPT_ITERS", "many")
    assert lengths(drakegpt(*given, "--iters", 5)) == {"BigramLM": 5}
    refused = drakegpt(*given)
    assert refused.code == 2
    assert "DRAKEGPT_ITERS: iters cannot be 'many': it is a whole number." in refused.err
    monkeypatch.delenv("DRAKEGPT_ITERS")
    monkeypatch.setenv("DRAKEGPT_COMPILE", "0")
    assert drakegpt("compare", "--iters", 5).code == 1  # those runs left it to the machine


def test_the_file_of_a_run_makes_a_ladder_like_it(drakegpt, prepared, tmp_path):
    shape = ("--embedding-dim", 8, "--num-layers", 1, "--dropout", 0)
    printed = drakegpt("train", "TransformerLM", *TINY, *shape, "--print-config")
    (tmp_path / "run.toml").write_text(printed.out)
    shown = drakegpt("compare", "--train", "--config", tmp_path / "run.toml", "--json", "-q")
    assert lengths(shown) == dict.fromkeys((row["model"] for row in shown.json["rows"]), 3)
    assert len(shown.json["rows"]) == 6
    again = drakegpt("compare", "--config", tmp_path / "run.toml", "--json")
    assert again.json["rows"] == shown.json["rows"]
    assert drakegpt("compare", "--regularization", "--config", tmp_path / "run.toml").code == 1
    (tmp_path / "run.toml").write_text(printed.out.replace('bits = "full"', "bits = 1.58"))
    refused = drakegpt("compare", "--config", tmp_path / "run.toml")
    assert refused.code == 2
    assert "sets bits, which no model of the ladder has" in refused.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dropuot = 0.1", "Did you mean dropout?"),
        ('iters = "2"', "iters cannot be '2'"),
        ('seed = "a"', "seed cannot be 'a'"),
        ('device = "tpu"', "device cannot be 'tpu'"),
        ('size = "big"', "size cannot be 'big'"),
        ("max_lr = inf", "max_lr cannot be inf: input should be a finite number"),
    ],
)
def test_a_file_is_checked_also_where_nothing_is_trained(
    drakegpt, prepared, tmp_path, line, message
):
    (tmp_path / "c.toml").write_text(line)
    refused = drakegpt("compare", "--config", tmp_path / "c.toml", "--seeds", 2)
    assert refused.code == 2
    assert message in refused.err


def test_a_size_in_a_file_is_the_only_one(drakegpt, prepared, tmp_path):
    drakegpt("train", "BigramLM", *TINY, "-q")
    drakegpt("train", "BigramLM", "--scaled", "--batch-size", 2, "--context-length", 8, *TINY, "-q")
    assert len(drakegpt("compare", "--json").json["rows"]) == 2
    for size in ("default", "scaled"):
        (tmp_path / "c.toml").write_text(f'size = "{size}"')
        result = drakegpt("compare", "--config", tmp_path / "c.toml", "--json").json
        assert [row["size"] for row in result["rows"]] == [size]
        assert {missing["size"] for missing in result["missing"]} == {size}


def test_the_command_for_a_missing_model_makes_one_that_is_found(drakegpt, prepared):
    drakegpt("train", "BigramLM", *TINY, "-q")
    few = settings(*TINY)
    shown = drakegpt("compare", *few, "--json")
    command = shown.json["missing"][0]["command"]
    assert command.startswith("drakegpt train SingleHeadAttentionLM --data small --iters 3")
    assert drakegpt(*command.split()[1:], "-q").code == 0
    assert "SingleHeadAttentionLM" in lengths(drakegpt("compare", *few, "--json"))


@pytest.mark.slow
def test_the_ladder_of_a_preset_is_its_own(drakegpt, prepared):
    tutorial = ("--preset", "shakespeare-tutorial", *settings(*TINY))
    shown = drakegpt("compare", "--train", *tutorial, "--json", "-q")
    assert len(lengths(shown)) == 6
    assert shown.json["others"] == []
    again = drakegpt("compare", "--train", *tutorial, "--json", "-q")
    assert again.json["rows"] == shown.json["rows"]
    assert {row["preset"] for row in again.json["rows"]} == {"shakespeare-tutorial"}
    plain = drakegpt("compare", "--json").json
    assert plain["rows"] == []
    assert len(plain["others"]) == 6
    refused = drakegpt("compare", "--regularization", *tutorial)
    assert refused.code == 2
    assert "Only the table of the ladder has --preset" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num-layers 4", "Write it as --set num_layers=VALUE."),
        (
            "--bits 1.58",
            "--bits is a flag of `drakegpt train`. `drakegpt compare --low-bit` compares",
        ),
        ("--tie-embeddings", "Leave it out."),
        ("--set num_layer=4", "Did you mean num_layers?"),
        ("--set iters=abc", "iters cannot be 'abc': it is a whole number."),
        ("--set dropout=2", "dropout cannot be 2.0"),
        ("--set bits=1.58", "bits cannot be set here. `drakegpt compare --low-bit` compares"),
        ("--iters 7", "Train all six: the same command with --train."),
        ("--scaled", "Train all six: the same command with --train."),
        ("--prompt 日本", "Leave them out"),
        ("--set dropout", "--set dropout has no value."),
        ("--set dropout=0 --set dropout=0.1", "dropout is given twice."),
        ("--set seed=1 --iters 3 --set iters=3", "iters is given twice."),
        ("--set schedule=linear", "schedule cannot be 'linear'"),
    ],
)
def test_mistakes_have_one_message(drakegpt, prepared, arguments, message):
    refused = drakegpt("compare", *arguments.split())
    assert refused.code in (1, 2)
    assert message in " ".join(refused.err.replace("│", " ").split())
    assert refused.out == ""


def test_settings_that_a_missing_model_cannot_have_are_told(drakegpt, prepared, tmp_path):
    """BigramLM has no heads, so it takes any number of them; the others' widths must divide."""
    assert drakegpt("train", "BigramLM", *TINY, "--num-heads", 5, "-q").code == 0
    page = tmp_path / "page.html"
    shown = drakegpt("compare", "--set", "num_heads=5", "--html", page)
    assert shown.code == 0, shown.err
    why = "no finished run of TransformerLM: embedding_dim 32 cannot be split evenly over num_heads"
    assert why in shown.err
    assert "none can be trained with these settings" in page.read_text(encoding="utf-8")
    missing = drakegpt("compare", "--set", "num_heads=5", "--json").json["missing"]
    made = {entry["model"]: entry["command"] for entry in missing}
    assert "--num-heads 5" in made["SingleHeadAttentionLM"]
    assert made["TransformerLM"] == ""
