"""drakegpt in a notebook: what `import drakegpt` offers, beside the command line."""

import inspect
import re
import subprocess
import sys
import textwrap
import typing
from pathlib import Path

import pytest

import drakegpt as dg
from drakegpt.config import LADDER
from drakegpt.display import Table
from drakegpt.errors import CorpusError, DrakeGPTError, RunError, UsageError
from drakegpt.runs.lookup import list_runs
from drakegpt.training.reports import Evaluation, Step

QUICK = {"iters": 20, "eval_iters": 2, "batch_size": 4, "seed": 1}


@pytest.fixture
def trained(prepared):
    return dg.train("BigramLM", prepared, **QUICK)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network is used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)


@pytest.mark.slow
def test_the_example_in_the_documentation_works(capfd, tmp_path, monkeypatch):
    """As it stands there, but for the number of iterations."""
    example = textwrap.dedent(re.search(r"^    .*?(?=^\S)", dg.__doc__, re.M | re.S)[0])
    lines = [line for line in example.splitlines() if line]
    assert len(lines) <= 10
    given = {}
    monkeypatch.chdir(tmp_path)
    exec(example.replace("iters=2000", "iters=20, eval_iters=2"), given)
    assert given["run"].name == given["again"].name
    assert [row.model for row in given["comparison"].rows] == list(LADDER)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f'"name":"{given["run"].name}","label":"TransformerLM"' in page
    shown = capfd.readouterr()
    assert shown.out.count("late night") == 1
    assert shown.err == ""


def test_every_public_name_is_offered_and_typed():
    assert set(dg.__all__) <= set(dir(dg))
    for name in dg.__all__:
        value = getattr(dg, name)
        assert value.__doc__, name
        assert "return" in typing.get_type_hints(value) or inspect.isclass(value), name
    assert (Path(dg.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="has no attribute 'tran'"):
        _ = dg.tran


# --- Datasets -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_network")
def test_what_is_bundled_or_a_file_is_prepared(tmp_path, corpus):
    sample = dg.load_dataset("sample")
    assert sample.metadata.songs == 52
    path = tmp_path / "mine.txt"
    path.write_text(corpus, encoding="utf-8")
    mine = dg.load_dataset(path)
    assert mine.name == "mine"
    assert dg.load_dataset("mine").metadata == mine.metadata
    assert dg.load_dataset().metadata == mine.metadata  # the one prepared last
    tokens = dg.load_dataset(str(path), tokenizer="bpe", vocab_size=300)
    assert (tokens.name, tokens.metadata.tokenizer) == ("mine-bpe", "bpe")


@pytest.mark.usefixtures("no_network")
def test_without_any_dataset_there_is_the_sample():
    assert dg.load_dataset().name == "sample"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("options", [{}, {"tokenizer": "bpe"}])
def test_load_dataset_downloads_nothing(options):
    with pytest.raises(CorpusError, match=r"drakegpt\.fetch\('shakespeare'\)"):
        dg.load_dataset("shakespeare", **options)


def test_fetch_prepares_and_reports(tmp_path, corpus):
    path = tmp_path / "mine.txt"
    path.write_text(corpus, encoding="utf-8")
    done = []
    data = dg.fetch(path, name="other", progress=lambda what, *_: done.append(what))
    assert data.name == "other"
    assert "encoding" in done


def test_what_is_neither_is_an_error():
    with pytest.raises(UsageError, match="neither a known source nor a file"):
        dg.load_dataset("nothing.txt")


# --- Training -----------------------------------------------------------------------------------


def test_a_run_is_what_the_command_makes(prepared, drakegpt, capsys):
    reports = []
    run = dg.train("bigramlm", prepared, name="own", progress=reports.append, **QUICK)
    assert capsys.readouterr() == ("", "")
    assert sum(isinstance(report, Step) for report in reports) == 20
    assert any(isinstance(report, Evaluation) for report in reports)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    done = drakegpt("train", "BigramLM", "--data", prepared.name, "--name", "theirs", *flags)
    assert done.code == 0, done.err
    theirs = dg.load_run("theirs")
    assert run.config == theirs.config
    own, others = (r.last_checkpoint().weights.read_bytes() for r in (run, theirs))
    assert own == others


def test_epochs_become_iterations(prepared):
    run = dg.train("BigramLM", prepared.name, epochs=1, eval_iters=2)
    assert run.finished
    assert run.config.epochs == 0
    assert run.config.iters == run.last_evaluation["iteration"] > 1


def test_minutes_become_iterations(prepared, monkeypatch):
    """As many as a measurement of this machine says at first; they are estimated anew later."""
    monkeypatch.setattr("drakegpt.training.run_length.iters_for_minutes", lambda *_: 7)
    run = dg.train("BigramLM", prepared, minutes=0.01, eval_iters=2)
    assert (run.config.minutes, run.config.iters) == (0.01, 7)
    assert run.last_evaluation["iteration"] > 1
    assert "0.01 minutes" in run.history


@pytest.mark.parametrize(
    "settings",
    [
        {"iter": 5},
        {"iters": 0},
        {"iters": 5, "epochs": 1},
        {"device": "tpu"},
        {"name": "a/b"},
        {"size": "huge"},
        {"init_from": "nobody"},
        {"context_length": 10**6},
    ],
)
def test_what_cannot_be_is_an_error_and_leaves_no_run(prepared, settings, capsys):
    with pytest.raises(DrakeGPTError):
        dg.train("BigramLM", prepared, **settings)
    assert list_runs() == []
    assert capsys.readouterr() == ("", "")


def test_a_model_that_does_not_exist_is_an_error(prepared):
    with pytest.raises(UsageError, match="Did you mean BigramLM"):
        dg.train("BigramML", prepared)


def test_an_interrupted_run_is_kept(prepared):
    def interrupt(report):
        if isinstance(report, Step) and report.iteration == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dg.train("BigramLM", prepared, name="half", progress=interrupt, save_interval=5, **QUICK)
    run = dg.load_run("half")
    assert not run.finished
    assert run.last_checkpoint().iteration == 15


# --- Generation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5, "top_k": 5}, {"best": True}])
def test_a_text_is_that_of_the_command(trained, drakegpt, options):
    text = trained.generate("the ", 60, seed=7, **options)
    assert text.startswith("the ")
    flags = [
        f"--{k.replace('_', '-')}" if v is True else f"--{k.replace('_', '-')}={v}"
        for k, v in options.items()
    ]
    done = drakegpt("generate", trained.name, "--prompt=the ", "-n", 60, "--seed", 7, *flags)
    assert done.out.removesuffix("\n") == text.removesuffix("\n")
    assert dg.generate(trained.name, "the ", 60, seed=7, **options) == text
    assert dg.generate(trained, "the ", 60, seed=7, **options) == text


def test_weights_alone_write_the_same(trained):
    path = trained.last_checkpoint().weights
    assert dg.generate(path, "a", 20, seed=3) == trained.generate("a", 20, seed=3)


def test_several_runs_and_counts(trained, prepared, drakegpt):
    held_out = dg.train("BigramLM", prepared, select_on="training-tail", name="tail", **QUICK)
    ask = ("--prompt=the ", "-n", 30, "--seed", 7)
    both = drakegpt("generate", trained.name, "tail", *ask).out.removesuffix("\n")
    assert dg.generate([trained, "tail"], "the ", 30, seed=7) == both
    mixed = drakegpt("generate", "tail", "--counts", *ask).out.removesuffix("\n")
    assert held_out.generate("the ", 30, seed=7, counts=True) == mixed
    assert dg.generate("tail", "the ", 30, seed=7, counts=True) == mixed
    assert trained.generate("the ", 30, seed=7, counts=True) != trained.generate("the ", 30, seed=7)


def test_a_seed_is_drawn_where_none_is_given(trained):
    assert len({trained.generate(length=40) for _ in range(3)}) > 1


def test_characters_that_the_model_does_not_know(trained):
    assert trained.generate("\u00e9", 0) == "e"
    with pytest.raises(UsageError, match="never seen"):
        trained.generate("\u4e00")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": -1}, "length cannot be -1"),
        ({"seed": -1}, "seed cannot be -1"),
        ({"temperature": float("nan")}, "temperature cannot be nan"),
        ({"top_k": 0}, "top_k cannot be 0"),
        ({"top_p": 1.5}, "top_p cannot be 1.5"),
        ({"device": "tpu"}, "device cannot be 'tpu'"),
    ],
)
def test_what_cannot_be_generated_is_an_error(trained, options, said):
    with pytest.raises(UsageError, match=said):
        trained.generate(**options)


# --- Scores, comparisons, how they look ----------------------------------------------------------


def test_scores_are_those_of_the_command(trained, drakegpt):
    scores = trained.score()
    assert drakegpt("eval", trained.name, "--json").json["val"] == scores.val.to_json()


@pytest.mark.slow
def test_a_comparison_trains_what_is_missing_and_prints_nothing(prepared, capfd):
    reports = []
    with pytest.raises(RunError, match="No model has been trained"):
        dg.compare(prepared)
    comparison = dg.compare(prepared, train=True, progress=reports.append, **QUICK)
    assert capfd.readouterr() == ("", "")
    assert [row.model for row in comparison.rows] == list(LADDER)
    assert sum(isinstance(report, Step) for report in reports) == 6 * 20
    assert dg.compare(prepared.name).to_json() == comparison.to_json()
    assert len(list_runs()) == 6
    for name in LADDER:
        assert f"\n{name} " in repr(comparison)
        assert f">{name}</td>" in comparison._repr_html_()


@pytest.mark.parametrize("settings", [{"bits": "1"}, {"model": "GPT1LM"}, {"iterz": 3}])
def test_a_comparison_of_something_else_is_an_error(prepared, settings):
    with pytest.raises(UsageError):
        dg.compare(prepared, train=True, **settings)


def test_results_show_themselves(trained):
    scores = trained.score()
    assert f"Run {trained.name}\n" in repr(trained)
    assert "20 of 20" in repr(trained)
    assert f"{scores.val.loss:.4f}" in repr(scores)
    for shown in (trained, scores):
        assert re.fullmatch(r"<table>.*</table>", shown._repr_html_(), re.S)
    assert f"{scores.val.loss:.4f}" in scores._repr_html_()


def test_a_dataset_shows_itself(prepared):
    split = f"{prepared.metadata.val_tokens:,} tokens"
    assert re.match(f"Dataset small\n(.*\n)*validation split +{split}\n", repr(prepared))
    assert f">{split}</td>" in prepared._repr_html_()


def test_a_run_without_metrics_shows_itself(trained):
    (trained.folder / "metrics.jsonl").write_text("damaged\n")
    assert "0 of 20" in repr(dg.load_run(trained.name))


def test_text_from_outside_is_text_in_a_table():
    table = Table("<b>&", [("<script>", "\x1b[31m")])
    assert "<script>" not in table.to_html()
    assert "<b>" not in table.to_html()
    assert "\x1b" not in table.to_text()


def test_a_table_is_aligned():
    table = Table("Losses", [("BigramLM", "2.5"), ("TransformerLM", "10.25")], ("model", "loss"))
    assert table.to_text().splitlines() == [
        "Losses",
        "model           loss",
        "BigramLM         2.5",
        "TransformerLM  10.25",
    ]


def test_a_program_without_logging_gets_no_warnings_on_stderr():
    """Python writes them there where no handler takes them."""
    code = "import logging, drakegpt.library; logging.getLogger('drakegpt').warning('said')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
