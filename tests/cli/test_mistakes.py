"""Mistakes that everyone makes: each is understood, or answered with what was meant."""

import re
import sys

import pytest
from learning import prepare, small_text

from drakegpt.config import expand_lr, resolve
from drakegpt.errors import UsageError

SHORT = ("--iters", 4, "--eval-iters", 1, "-q")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("trian", "train"),
        ("runs lst", "list"),
        ("train TransfomerLM", "TransformerLM"),
        ("train --itres 5", "--iters"),
        ("train BigramLM --recipe fsat", "fast"),
        ("train BigramLM --schedule cosin", "cosine"),
        ("train BigramLM --device cpuu", "cpu"),
        ("train --preset gpt1-smal", "gpt1-small"),
        ("compare --set max_l=1", "max_lr"),
        ("compare --set optimizer=mun", "muon"),
        ("compare --recipe bst", "best"),
        ("data show smal", "small"),
        ("eval smalll-1", "small-1"),
        ("generate latst", "latest"),
        ("runs show smal-1", "small-1"),
        ("runs remove small-", "small-1"),
        ("data fetch x.txt --tokenizer bpee", "bpe"),
        ("data fetch shakespear", "shakespeare"),
    ],
)
def test_what_was_meant_is_asked(drakegpt, home, line, meant):
    prepare(small_text())
    (home / "runs" / "small-1").mkdir(parents=True)
    done = drakegpt(*line.split(), COLUMNS=200)
    assert done.code in (1, 2)
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", done.err).split())
    assert re.search(rf"(Did you mean|Possible options:|option) '?(--bits, )?{meant}\b", said), said


@pytest.mark.parametrize("words", ["", "train", "data", "data fetch", "runs show"])
def test_help_is_a_word_too(drakegpt, words):
    asked = drakegpt("help", *words.split())
    assert asked.code == 0
    assert asked.out == drakegpt(*words.split(), "--help").out


def test_help_on_a_command_that_does_not_exist(drakegpt):
    assert drakegpt("help", "trian").code == 2


class TestNames:
    @pytest.fixture(autouse=True)
    def _runs(self, drakegpt):
        prepare(small_text())
        for model in ("BigramLM", "BlocksLM"):
            assert drakegpt("train", model, *SHORT).code == 0

    def test_runs_are_numbered_by_dataset(self, drakegpt):
        listed = [row["run"] for row in drakegpt("runs", "list", "--json").json["runs"]]
        assert listed == ["small-1", "small-2"]
        drakegpt("runs", "remove", "small-1", "--yes")
        drakegpt("train", "BigramLM", *SHORT)
        listed = [row["run"] for row in drakegpt("runs", "list", "--json").json["runs"]]
        assert listed == ["small-2", "small-3"]  # a number is not given again

    def test_words_and_beginnings_name_runs(self, drakegpt, home):
        drakegpt("train", "BigramLM", *SHORT, "--name", "other")

        def shown(target):
            return drakegpt("runs", "show", target, "--json").json["run"]

        assert shown("latest") == "other"
        assert shown("oth") == "other"
        best = drakegpt("eval", "--json").json["run"]
        assert drakegpt("eval", "best", "--json").json["run"] == best
        several = drakegpt("generate", "small")
        assert several.code == 2
        assert "small-1, small-2" in several.err
        drakegpt("train", "BigramLM", *SHORT, "--name", "latest")
        drakegpt("train", "BigramLM", *SHORT, "--name", "z")
        assert shown("latest") == "latest"  # a run's own name wins

    @pytest.mark.parametrize("word", ["latest", "best", "small", "small-"])
    def test_only_a_whole_name_removes(self, drakegpt, home, word):
        refused = drakegpt("runs", "remove", word, "--yes")
        assert refused.code == 1
        assert len(list((home / "runs").iterdir())) == 2

    def test_the_latest_is_resumed(self, drakegpt):
        done = drakegpt("train", "--resume", "small-2", "--iters", 6, "-q")
        assert done.code == 0, done.err
        assert "no unfinished run" in drakegpt("train", "--resume", "latest").err

    def test_tables_fit_80_columns(self, terminal):
        shown = terminal("runs", columns=80)
        assert max(map(len, shown.text.splitlines())) <= 80
        assert "BigramLM" in shown.text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), {"--iters 8"}),
        (("--patience", 1, "--iters", 40, "--lr", 1, "--eval-interval", 1), {"--patience 2"}),
    ],
)
def test_a_finished_run_says_how_to_train_it_further(drakegpt, settings, expected):
    prepare(small_text())
    assert drakegpt("train", "BigramLM", *SHORT, *settings, "--name", "r").code == 0
    again = drakegpt("train", "--resume", "r")
    assert again.code == 0
    assert "r is finished after" in again.err
    for option in expected:
        assert f"drakegpt train --resume r {option}" in again.err
    more = ["--resume", "r", *next(iter(expected)).split()]
    done = drakegpt("train", *more, "-q", "--json")
    assert done.json["iterations"] > 4 or "--patience" in more


@pytest.mark.parametrize(
    "command", ["train BigramLM --iters 2 --eval-iters 1 -q", "compare --train --iters 2 -q"]
)
def test_a_file_is_prepared_as_a_dataset(drakegpt, tmp_path, command):
    (tmp_path / "my songs.txt").write_text(small_text())
    if command.startswith("compare"):
        command += " --set eval_iters=1"
    done = drakegpt(*command.split(), "--data", tmp_path / "my songs.txt")
    assert done.code == 0, done.err
    assert "is prepared as the dataset 'my-songs'" in done.err
    assert drakegpt("data", "list", "--json").json["datasets"][0]["name"] == "my-songs"
    again = drakegpt("eval", "--data", tmp_path / "my songs.txt", "--json")
    assert "is prepared already as" in again.err
    assert again.json["data"] == "my-songs"


def test_a_datasets_name_wins_over_a_file(drakegpt, tmp_path, monkeypatch):
    prepare(small_text())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").write_text("something else\n" * 100)
    assert (
        drakegpt("train", "BigramLM", *SHORT, "--data", "small", "--json").json["data"] == "small"
    )


def test_stop_on_a_text_without_songs(drakegpt, tmp_path):
    (tmp_path / "prose.txt").write_text(small_text())
    drakegpt("data", "fetch", tmp_path / "prose.txt", "--tokenizer", "bpe", "--vocab-size", 280)
    assert drakegpt("train", "BigramLM", *SHORT).code == 0
    refused = drakegpt("generate", "--stop", "-n", 5)
    assert refused.code == 2
    assert "'prose-bpe' is not divided into songs" in refused.err


RATES = ("base_lr", "max_lr", "muon_lr")


@pytest.mark.parametrize(
    ("settings", "ratios"),
    [
        ({}, (0.2, 1)),  # cyclic between 1e-3 and 5e-3
        ({"schedule": "constant"}, (1, 1)),
        ({"schedule": "step"}, (1, 1)),
        ({"schedule": "plateau"}, (1, 1)),
        ({"schedule": "cosine"}, (0.2, 1)),
        ({"recipe": "fast", "embedding_dim": 96}, (1e-5 / 0.03, 1, 2)),
        ({"recipe": "best"}, (0, 1, 20)),
        ({"preset": "shakespeare-tutorial"}, (1, 1)),
        ({"base_lr": 1e-4}, (None, 1)),
        ({"recipe": "best", "muon_lr": 0.1}, (0, 1, None)),
    ],
)
def test_lr_is_the_peak_and_the_other_rates_keep_their_ratio(settings, ratios):
    expanded = expand_lr(0.002, "TransformerLM", "default", settings)
    resolved = resolve("TransformerLM", "default", "", settings, expanded)
    for name, ratio in zip(RATES, ratios, strict=False):
        if ratio is None:
            assert getattr(resolved, name) == settings[name]
        else:
            assert getattr(resolved, name) == pytest.approx(0.002 * ratio)


@pytest.mark.parametrize("lr", ["0", "-1", "nan", "inf", "1e40"])
def test_a_rate_that_is_none(drakegpt, lr):
    prepare(small_text())
    refused = drakegpt("train", "BigramLM", f"--lr={lr}")
    assert refused.code == 2
    assert "lr cannot be" in refused.err


def test_lr_and_max_lr_are_not_both_given(drakegpt, tmp_path):
    with pytest.raises(UsageError, match="both set the peak"):
        expand_lr(0.1, "BigramLM", "default", {"max_lr": 1.0})
    file = tmp_path / "c.toml"
    file.write_text('model = "BigramLM"\nmax_lr = 0.5\n')
    shown = drakegpt("train", "--config", file, "--lr", 0.25, "--print-config")
    assert "\nmax_lr = 0.25\n" in shown.out  # flags win over a file


def test_lr_is_shown_first(drakegpt):
    shown = drakegpt("train", "--help", COLUMNS=100).out
    panel = shown.partition("─ Common settings ─")[2]
    assert re.search(r"--[\w-]+", panel)[0] == "--lr"
    assert "Write it as --set max_lr=VALUE" in drakegpt("compare", "--lr", 1).err


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "--optimizer muon --muon-lr 1e30",
        "--bits 1.58 --schedule constant --base-lr 1e25",
        "--dtype bfloat16",
        "--recipe best --ema 0.5",
        "--schedule cosine --grad-accumulation 2",
    ],
)
def test_nan_stops_training_and_says_what_to_lower(drakegpt, settings):
    prepare(small_text())
    done = drakegpt("train", "TransformerLM", "--iters", 30, "--eval-iters", 1, "-q",
                    "--embedding-dim", 16, "--num-layers", 1, "--lr", 1e28, "--name", "r",
                    *settings.split())  # fmt: skip
    assert done.code == 1, done.err
    assert re.search("The loss became nan|weights are no longer finite", done.err), done.err
    assert "train again with --lr 2.5e+27" in done.err
    assert ("--muon-lr" in done.err) == ("muon" in settings or "best" in settings)
    assert "Traceback" not in done.err


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
@pytest.mark.parametrize("columns", [40, 50, 80])
def test_no_word_is_broken_at_the_edge(terminal, columns):
    """Words of messages are whole; what is longer than a line, and commands, stay in one piece."""
    prepare(small_text())
    for arguments in (("train", "Transfomer"), ("data", "show", "smal"), ("eval",),
                      ("train", "BigramLM", "--recipe", "best")):  # fmt: skip
        whole = set(terminal(*arguments, columns=700).text.split())
        lines = terminal(*arguments, columns=columns).text.splitlines()
        assert set(" ".join(lines).split()) == whole
        assert all(len(line.rstrip()) <= columns or " " not in line.strip() for line in lines)


class TestSamples:
    @pytest.fixture(autouse=True)
    def _run(self, trained):
        """A home with a run."""

    def test_json_names_the_seeds(self, drakegpt):
        shown = drakegpt("generate", "r", "--num-samples", 3, "--seed", 7, "-n", 5, "--json")
        assert [sample["seed"] for sample in shown.json["samples"]] == [7, 8, 9]

    def test_a_pipe_has_the_texts_alone(self, drakegpt):
        shown = drakegpt("generate", "r", "--num-samples", 2, "--seed", 7, "-n", 5)
        alone = [drakegpt("generate", "r", "--seed", seed, "-n", 5).out for seed in (7, 8)]
        assert shown.out == "\n".join(alone)
        assert re.findall(r"Saved as .* \(seed (\d)\)", shown.err) == ["7", "8"]

    def test_a_terminal_has_a_line_above_each(self, terminal):
        shown = terminal("generate", "r", "--num-samples", 2, "--seed", 7, "-n", 5).text
        assert re.findall("^── seed (.) ──$", shown, re.M) == ["7", "8"]
        assert "── seed" not in terminal("generate", "r", "--seed", 7, "-n", 5).text


def test_several_runs_and_datasets_are_removed_at_once_or_none(drakegpt, home):
    for name in ("one", "two", "three"):
        prepare(small_text(), name)
    refused = drakegpt("data", "remove", "one", "oen", "--yes")
    assert refused.code == 1
    assert "oen" in refused.err
    assert drakegpt("data", "list").out.count("one") == 1
    asked = drakegpt("data", "remove", "one", "two", stdin="y\n")
    assert "Remove one, two for good?" in asked.err
    assert asked.out.split() == ["Removed", "one", "Removed", "two"]
    kept = drakegpt("data", "remove", "three", stdin="n\n")
    assert kept.code == 1
    assert "Nothing is removed" in kept.err
    closed = drakegpt("data", "remove", "three")
    assert closed.code == 1
    assert "--yes removes without asking" in closed.err
    assert (home / "data" / "three").exists()


@pytest.mark.parametrize(
    "words", [("train", "--no-such"), ("trian",), ("generate", "-n"), ("runs", "show")]
)
def test_errors_of_the_parser_look_like_all_others(drakegpt, words):
    refused = drakegpt(*words)
    assert refused.code == 2
    assert refused.err.startswith("Error: ")
    assert "--help` shows what it takes" in refused.err
    assert "╭" not in refused.err
