import dataclasses
import shlex
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.config import (
    MODEL_NAMES,
    SIZES,
    TrainConfig,
    changeable_settings,
    check_setting,
    incidental_settings,
    parse_model,
    resolve,
    searchable_settings,
    setting_of,
)
from drakegpt.config.files import from_file, to_command, to_toml
from drakegpt.errors import UsageError


def test_presets_are_the_original_recipe():
    default = resolve("TransformerLM", "default", "x")
    scaled = resolve("TransformerLM", "scaled", "x")
    for config, values in (
        (default, (8, 32, 1e-3, 5e-3, 32, 4, 3, 0.1, 8)),
        (scaled, (256, 64, 3e-4, 6e-4, 384, 6, 6, 0.2, 64)),
    ):
        assert (
            config.context_length, config.batch_size, config.base_lr, config.max_lr,
            config.embedding_dim, config.num_heads, config.num_layers, config.dropout,
            config.model_settings(80).head_size,
        ) == values  # fmt: skip
        assert (config.iters, config.eval_interval, config.eval_iters) == (10_000, 500, 200)
        assert config.seed == 42


def test_the_fast_recipe_lies_under_what_is_given():
    """It changes how a model is trained, not the model; the original's stays the default."""
    original, fast = (
        resolve("TransformerLM", "default", "x", {"recipe": recipe}) for recipe in (None, "fast")
    )
    assert (original.recipe, original.schedule, original.iters) == ("original", "cyclic", 10_000)
    assert (fast.recipe, fast.schedule, fast.iters) == ("fast", "hold", 4000)
    assert fast.warmup_iters == fast.eval_interval == 200
    given = {"recipe": "fast", "iters": 300, "max_lr": 0.5}
    config = resolve("TransformerLM", "default", "x", given)
    assert (config.iters, config.max_lr, config.schedule) == (300, 0.5, "hold")
    with pytest.raises(UsageError, match="recipe cannot be 'slow'"):
        resolve("TransformerLM", "default", "x", {"recipe": "slow"})


@pytest.mark.parametrize(
    ("model", "size", "optimizer"),
    [
        ("TransformerLM", "default", "adamw"),
        ("TransformerLM", "scaled", "muon"),
        ("ResidualBlocksLM", "scaled", "muon"),
        ("BlocksLM", "scaled", "adamw"),  # without residuals Muon's large steps diverge
        ("BigramLM", "scaled", "adamw"),
    ],
)
def test_the_fast_recipe_takes_muon_where_it_pays(model, size, optimizer):
    assert resolve(model, size, "x", {"recipe": "fast"}).optimizer == optimizer
    assert resolve(model, size, "x").optimizer == "adamw"


def test_the_best_recipe_of_the_scaled_size():
    config = resolve("TransformerLM", "scaled", "x", {"recipe": "best"})
    expected = {
        "optimizer": "muon", "muon_lr": 0.02, "muon_momentum": 0.95, "muon_weight_decay": 0.1,
        "muon_split_qkv": True, "max_lr": 1e-3, "base_lr": 0.0, "adam_beta2": 0.99,
        "weight_decay": 0.1, "weight_decay_on": "matrices", "schedule": "hold", "hold_share": 0.4,
        "warmup_iters": 50, "ema": 0.99, "positions": "rotary", "init": "gpt2", "dropout": 0.3,
        "embedding_dropout": 0.3, "token_dropout": 0.15, "iters": 5000, "batch_size": 64,
        "context_length": 256, "grad_clip": 0.0,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("iters", "ema"), [(1, 0.0), (20, 0.5), (200, 0.95), (500, 0.98), (1000, 0.99), (10**6, 0.99)]
)
def test_the_average_of_a_short_run_reaches_back_over_a_tenth_of_it(iters, ema):
    config = resolve("TransformerLM", "default", "x", {"recipe": "best", "iters": iters})
    assert config.ema == ema
    given = resolve("TransformerLM", "default", "x", {"recipe": "best", "iters": 50, "ema": 0.9})
    assert given.ema == 0.9
    assert resolve("TransformerLM", "default", "x", {"recipe": "fast", "iters": 50}).ema == 0.0


def test_the_file_of_a_run_with_a_time_gives_the_time_and_no_iterations(tmp_path):
    config = resolve("TransformerLM", "default", "x", {"minutes": 2.0, "iters": 700})
    (tmp_path / "run.toml").write_text(to_toml(config))
    found = from_file(tmp_path / "run.toml")
    assert found["minutes"] == 2.0
    assert "iters" not in found
    (tmp_path / "own.toml").write_text("minutes = 2.0\niters = 700\n")
    assert from_file(tmp_path / "own.toml") == {"minutes": 2.0, "iters": 700}  # refused later


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("ResidualBlocksLM", {"recipe": "best"}, "recipe best is for"),
        ("TransformerLM", {"recipe": "best", "bits": "1.58"}, "recipe best is for"),
        ("TransformerLM", {"ema": 0.9, "bits": "1"}, "ema averages"),
        ("BigramLM", {"token_dropout": 0.1}, "token_dropout does not apply"),
        ("BigramLM", {"embedding_dropout": 0.1}, "embedding_dropout does not apply"),
        ("BigramLM", {"positions": "rotary"}, "positions does not apply"),
        ("TransformerLM", {"positions": "rotary", "embedding_dim": 36, "num_heads": 4}, "even"),
        ("SingleHeadAttentionLM", {"positions": "rotary", "embedding_dim": 33}, "even"),
    ],
)
def test_a_setting_that_a_model_cannot_have_is_an_error(model, settings, words):
    with pytest.raises(UsageError, match=words):
        resolve(model, "default", "x", settings)


def test_settings_that_follow_from_others():
    gpt1 = resolve("GPT1LM", "default", "x", {"dropout": 0.4, "weight_decay": 0.2})
    assert (gpt1.embedding_dropout, gpt1.muon_weight_decay) == (0.4, 0.2)
    plain = resolve("TransformerLM", "default", "x", {"dropout": 0.4, "muon_weight_decay": 0.3})
    assert (plain.embedding_dropout, plain.muon_weight_decay) == (0.0, 0.3)


def test_few_bits_bring_their_own_recipe():
    config = resolve("TransformerLM", "default", "x", {"bits": "1.58"})
    assert (config.schedule, config.weight_decay, config.dropout) == ("two-stage", 0.1, 0.0)
    assert config.max_lr > resolve("TransformerLM", "default", "x").max_lr
    assert config.model_settings(80).bits == "1.58"
    with pytest.raises(UsageError, match="BigramLM has no linear layers"):
        resolve("BigramLM", "default", "x", {"bits": "1"})
    with pytest.raises(UsageError, match="bits cannot be '2'"):
        resolve("TransformerLM", "default", "x", {"bits": "2"})


def test_what_is_left_to_the_machine_is_not_in_the_file(tmp_path):
    (tmp_path / "c.toml").write_text(to_toml(resolve("BigramLM", "default", "x")))
    assert "compile" not in from_file(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text(
        to_toml(resolve("BigramLM", "default", "x", {"compile": False}))
    )
    assert from_file(tmp_path / "c.toml")["compile"] is False


def test_later_layers_win_and_none_means_not_given():
    config = resolve(
        "BigramLM", "default", "x", {"iters": 5, "seed": 1}, {"iters": 9, "seed": None}
    )
    assert (config.iters, config.seed) == (9, 1)


@pytest.mark.parametrize(
    ("iters", "interval"), [(10_000, 500), (10_010, 501), (1_000, 50), (39, 2), (30, 2), (3, 1)]
)
def test_twenty_evaluations_at_most_however_long_the_run(iters, interval):
    assert -(-iters // interval) <= 20
    assert resolve("BigramLM", "default", "x", {"iters": iters}).eval_interval == interval


@given(
    model=st.sampled_from(MODEL_NAMES),
    size=st.sampled_from(["default", "scaled"]),
    iters=st.integers(1, 10**6),
    dropout=st.floats(0, 0.99),
    data=st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
)
def test_toml_gives_back_the_same_settings(tmp_path_factory, model, size, iters, dropout, data):
    config = resolve(model, size, data, {"iters": iters, "dropout": dropout})
    path = tmp_path_factory.mktemp("c") / "run.toml"
    path.write_text(to_toml(config), encoding="utf-8", newline="\n")
    values = from_file(path)
    assert resolve(values["model"], values["size"], values["data"], values) == config


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"contxt": 3}, ["'contxt'", "context_length"]),
        ({"iters": "many"}, ["iters", "'many'", "integer"]),
        ({"iters": 0}, ["iters", "greater than or equal to 1"]),
        ({"iters": True}, ["iters", "True"]),
        ({"batch_size": 2.5}, ["batch_size", "2.5"]),
        ({"dropout": 1.0}, ["dropout", "less than 1"]),
        ({"dropout": float("nan")}, ["dropout"]),
        ({"max_lr": -1.0}, ["max_lr", "greater than 0"]),
        ({"device": "tpu"}, ["device", "'cuda'"]),
        ({"size": "huge"}, ["size", "'scaled'"]),
        ({"num_heads": 5}, ["32", "5", "embedding_dim"]),
        ({"base_lr": 1.0}, ["base_lr", "max_lr"]),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(UsageError) as caught:
        resolve("TransformerLM", "default", "x", settings)
    for word in words:
        assert word in str(caught.value)


def test_heads_need_not_divide_where_there_are_none():
    assert resolve("BigramLM", "default", "x", {"num_heads": 5}).num_heads == 5


def test_every_setting_explains_itself():
    for field in dataclasses.fields(TrainConfig):
        assert setting_of(field.name).help.endswith(".")


def test_model_names_in_any_case_and_near_misses():
    assert parse_model("transformerlm") == "TransformerLM"
    with pytest.raises(UsageError, match="Did you mean BlocksLM"):
        parse_model("BlockLM")


def test_configuration_needs_neither_torch_nor_pydantic():
    code = "import sys, drakegpt.config; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_yaml_is_read_by_its_ending(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: GPT1LM\nmax_lr: 2.5e-4  # a comment\niters: 7000\n", encoding="utf-8")
    assert from_file(path) == {"model": "GPT1LM", "max_lr": 2.5e-4, "iters": 7000}
    (tmp_path / "empty.yml").write_text("", encoding="utf-8")
    assert from_file(tmp_path / "empty.yml") == {}


@pytest.mark.parametrize(
    "text",
    ["a: [", "- 1", "5", "1: 2", "!!python/object/apply:os.system ['true']", "a: b: c", "\x00"],
)
def test_other_yaml_is_refused(tmp_path, text):
    path = tmp_path / "run.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="is not valid YAML"):
        from_file(path)


def test_yaml_as_people_write_it(tmp_path):
    path = tmp_path / "run.yml"
    path.write_text(
        "bits: 1.58\nwandb: off\nmax_lr: 1e-2\niters: 50\ncompile: false\nmodel: GPT1LM"
    )
    settings = from_file(path)
    config = resolve(settings["model"], "default", "x", settings)
    assert (config.bits, config.wandb, config.max_lr) == ("1.58", "off", 0.01)
    assert (config.iters, config.compile) == (50, False)


def test_what_a_system_says_goes_before_its_recipe_but_not_before_what_is_asked():
    def gpt1(**given):
        return resolve("GPT1LM", "default", "x", {"preset": "gpt1-small", **given})

    assert gpt1().iters == gpt1(recipe="fast").iters == gpt1(bits="full").iters == 3000
    assert gpt1().optimizer == "muon"
    assert gpt1(bits="1.58").schedule == "two-stage"
    with pytest.raises(UsageError, match="sets the size of the model"):
        resolve("GPT1LM", "scaled", "x", {"preset": "gpt1-small"})


def test_a_system_fills_what_is_not_given():
    gpt1 = resolve("GPT1LM", "default", "x", {"preset": "gpt1"})
    assert (gpt1.context_length, gpt1.embedding_dim, gpt1.num_layers) == (512, 768, 12)
    assert (gpt1.batch_size, gpt1.max_lr, gpt1.schedule) == (6, 2.5e-4, "cosine")
    assert (gpt1.iters, gpt1.eval_interval, gpt1.eval_iters) == (7000, 200, 200)
    assert (gpt1.grad_clip, gpt1.weight_decay_on, gpt1.warmup_iters) == (1.0, "matrices", 350)
    shorter = resolve("GPT1LM", "default", "x", {"preset": "gpt1", "num_layers": 2})
    assert shorter.num_layers == 2
    tutorial = resolve("TransformerLM", "default", "x", {"preset": "shakespeare-tutorial"})
    assert (tutorial.embedding_dim, tutorial.num_heads, tutorial.context_length) == (64, 4, 8)
    assert (tutorial.schedule, tutorial.max_lr, tutorial.iters) == ("constant", 1e-3, 5000)
    assert (tutorial.batch_size, tutorial.eval_interval, tutorial.eval_iters) == (32, 1000, 200)
    sweep = resolve("TransformerLM", "default", "x", {"preset": "shakespeare-sweep"})
    assert sweep.context_length == 128


@pytest.mark.parametrize(
    ("settings", "batches"),
    [
        ({}, 24),  # of 256 tokens: 200 steps between evaluations, times 0.12
        ({"grad_accumulation": 3}, 72),
        ({"eval_interval": 50}, 8),  # of 256: not fewer than 2,048 tokens
        ({"iters": 10, "batch_size": 3000}, 1),
        ({"iters": 10**9}, 200),  # not more than the original
        ({"eval_iters": 7}, 7),
        ({"embedding_dim": 128, "context_length": 64, "batch_size": 12}, 12),
        ({"recipe": "original"}, 200),
        ({"recipe": "original", "iters": 10}, 200),
    ],
)
def test_evaluations_take_a_share_of_the_time_of_training(settings, batches):
    config = resolve("TransformerLM", "default", "x", {"recipe": "fast"} | settings)
    assert config.eval_iters == batches


@pytest.mark.parametrize("name", ["eval_interval", "grad_accumulation", "batch_size"])
@pytest.mark.parametrize("value", [0, -3, 1.5, "x"])
def test_a_wrong_setting_is_named_before_others_are_derived_from_it(name, value):
    with pytest.raises(UsageError, match=name):
        resolve("TransformerLM", "default", "x", {"recipe": "fast", name: value})


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "preset": st.sampled_from(["none", "shakespeare-tutorial", "gpt1-small"]),
        "recipe": st.sampled_from(["original", "fast"]),
        "bits": st.sampled_from(["full", "1.58"]),
        "embedding_dim": st.sampled_from([48, 96, 384]),
        "schedule": st.sampled_from(["cyclic", "constant", "hold", "step"]),
        "iters": st.integers(1, 20_000),
        "eval_interval": st.integers(1, 2000),
        "warmup_iters": st.integers(0, 500),
        "max_lr": st.floats(5e-3, 0.1),
        "dropout": st.floats(0, 0.9),
        "seed": st.integers(0, 2**32 - 1),
        "compile": st.booleans(),
        "weight_decay": st.sampled_from([0.0, 0.01, 0.1]),
    },
)


@given(model=st.sampled_from(MODEL_NAMES[1:]), size=st.sampled_from(SIZES), changes=CHANGES)
def test_the_command_of_a_configuration_gives_it_again(model, size, changes):
    if changes.get("preset", "none") != "none":
        size = "default"
    config = resolve(model, size, "my songs", changes)
    words = shlex.split(to_command(config))
    assert words[:3] == ["drakegpt", "train", model]
    flags, given = words[3:], {}
    while flags:
        flag = flags.pop(0).removeprefix("--").replace("-", "_")
        if flag == "scaled":
            given["size"] = "scaled"
        elif flag.removeprefix("no_") == "compile":
            given["compile"] = not flag.startswith("no_")
        else:
            kind = type(getattr(config, flag))
            given[flag] = kind(flags.pop(0))
    assert given["data"] == "my songs"
    assert resolve(model, given.pop("size", "default"), given.pop("data"), given) == config


def test_the_command_says_no_more_than_it_must():
    assert to_command(resolve("TransformerLM", "scaled", "x")) == (
        "drakegpt train TransformerLM --scaled --data x"
    )
    fast = resolve("BlocksLM", "default", "my songs", {"recipe": "fast", "iters": 300, "seed": 7})
    assert to_command(fast) == (
        "drakegpt train BlocksLM --data 'my songs' --recipe fast --iters 300 --seed 7"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("suffix", "line"), [("toml", "bits = 1.58"), ("yaml", "bits: 1.58")])
def test_files_are_read_as_editors_and_shells_write_them(tmp_path, suffix, line, encoding):
    path = tmp_path / f"c.{suffix}"
    path.write_bytes(f"{line}\r\n".encode(encoding))
    assert from_file(path) == {"bits": "1.58"}


def test_what_is_no_text_is_a_sentence(tmp_path):
    (tmp_path / "c.toml").write_bytes(b"iters = 5\xff\x00")
    with pytest.raises(UsageError, match="is not valid TOML"):
        from_file(tmp_path / "c.toml")


def test_what_else_a_setting_is_stands_in_its_metadata():
    assert set(changeable_settings()) == {
        "iters", "minutes", "max_epochs", "patience", "save_interval", "wandb", "device",
    }  # fmt: skip
    assert set(incidental_settings()) == {"device", "wandb", "save_interval"}
    others = {field.name for field in dataclasses.fields(TrainConfig)} - {*searchable_settings()}
    assert others == {
        "model", "size", "preset", "data", "init_from", "minutes", "max_epochs", "epochs",
        "eval_interval", "eval_iters", "device", "dtype", "compile", "wandb", "save_interval",
        "select_on",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "highest", "lowest"),
    [("context_length", 2**28, 1), ("iters", 2**53, 1), ("seed", 2**32 - 1, 0),
     ("max_lr", 1e30, 5e-324), ("hold_share", 1.0, 0.0), ("minutes", 1e5, 0.0)],
)  # fmt: skip
def test_bounds_hold_at_both_ends(name, highest, lowest):
    for value in (highest, lowest):
        check_setting(name, value)
    above = highest + 1 if isinstance(highest, int) else highest * 1.001
    for value in (above, lowest - 1):
        with pytest.raises(UsageError, match=rf"{name} cannot be .*: input .* (than|to) "):
            check_setting(name, value)


@pytest.mark.parametrize("model", [[], {}, 5, True])
def test_a_model_of_any_type_is_refused_in_a_sentence(model):
    with pytest.raises(UsageError, match="model cannot be"):
        resolve("TransformerLM", "default", "x", {"recipe": "fast"}, {"model": model})
