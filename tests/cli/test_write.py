"""`drakegpt write`: trains once, then only writes; a prompt in a terminal; more time."""

import json
import re

import pytest

from drakegpt.cli.write_progress import choose_lines, describe_loss
from drakegpt.cli.write_prompt import HELP, Conversation
from drakegpt.evaluation.trend import Trend
from drakegpt.runs.lookup import list_runs

TEXT = "".join(f"the {n} cats sat on the mat and sang {n} songs\n" for n in range(120))


@pytest.fixture
def lyrics(tmp_path):
    path = tmp_path / "my-lyrics.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def brief(monkeypatch):
    """A small model, which is trained for a moment."""
    small = {
        "recipe": "best", "embedding_dim": 16, "num_heads": 2, "num_layers": 1, "batch_size": 4,
        "context_length": 16, "max_epochs": 3,
    }  # fmt: skip
    monkeypatch.setattr("drakegpt.runs.writers.choose_text_settings", lambda *_, **__: dict(small))
    monkeypatch.setattr("drakegpt.runs.writers.FEWEST_ITERATIONS", 1)
    monkeypatch.setattr("drakegpt.runs.writers.judge_trend", lambda _: Trend("level"))


def write(drakegpt, *arguments):
    done = drakegpt("write", *arguments)
    assert done.code == 0, done.err
    return done


@pytest.mark.usefixtures("brief")
def test_it_trains_once_and_then_only_writes(drakegpt, lyrics, home):
    first = write(drakegpt, lyrics, "--minutes", 0.2, "--seed", 1)
    [run] = list_runs()
    assert run.info["purpose"] == "write"
    assert "Measuring how fast this machine is" in first.err
    assert "bits per character, as unsure as among" in first.err
    assert "learned; more text would help, more time would not" in first.err
    told = (
        r"Longest run copied from the text: \d+ characters, '.*'; [\d.]+% is in runs of 20 or more"
    )
    assert re.search(told + r" \(of held-out text that people wrote: [\d.]+%\)", first.err)
    assert first.err.count("Next: ") == 4
    assert first.out.count("-" * 24) == 2  # three pieces, and nothing else
    again = write(drakegpt, lyrics, "--seed", 1)
    assert again.out == first.out
    assert "Measuring" not in again.err
    assert [each.name for each in list_runs()] == [run.name]


@pytest.mark.usefixtures("brief")
def test_a_long_text_has_tokens_of_bpe_and_is_found_again(drakegpt, lyrics, monkeypatch):
    monkeypatch.setattr("drakegpt.runs.writers.choose_vocab_size", lambda *_: 300)
    first = write(drakegpt, lyrics, "--minutes", 0.2, "--seed", 1)
    [run] = list_runs()
    assert (run.config.model, run.config.data) == ("GPT1LM", "my-lyrics-bpe")
    assert "drakegpt write my-lyrics --prompt" in first.err
    assert write(drakegpt, lyrics, "--seed", 1).out == first.out
    assert write(drakegpt, "my-lyrics", "--seed", 1).out == first.out
    assert [each.name for each in list_runs()] == [run.name]


@pytest.mark.usefixtures("brief")
def test_a_prompt_is_continued_once(drakegpt, lyrics):
    write(drakegpt, lyrics, "--minutes", 0.2)
    done = write(drakegpt, lyrics, "--prompt", "the 3", "--seed", 2)
    assert done.out.startswith("the 3")
    assert "-" * 24 not in done.out
    as_json = drakegpt("write", lyrics, "--prompt", "the 3", "--seed", 2, "--json").json
    assert as_json["texts"][0].rstrip() == done.out.rstrip()
    assert set(as_json) == {
        "run", "data", "model", "iterations", "minutes", "val_loss", "texts", "longest_copy",
        "verdict", "copied_shares", "held_out_shares", "prompt", "seed", "temperature",
    }  # fmt: skip
    assert as_json["longest_copy"] in TEXT
    assert as_json["seed"] == 2
    unknown = write(drakegpt, lyrics, "--prompt", "the 漢 3", "--seed", 2)
    assert "the text has no '漢': left out of the prompt" in unknown.err


@pytest.mark.usefixtures("brief")
def test_a_changed_text_is_trained_anew_which_is_said(drakegpt, lyrics):
    write(drakegpt, lyrics, "--minutes", 0.2)
    lyrics.write_text(TEXT + "another line\n" * 9, encoding="utf-8")
    changed = write(drakegpt, lyrics, "--minutes", 0.2)
    assert "has changed: a new model is trained on it" in changed.err
    assert len(list_runs()) == 2


@pytest.mark.usefixtures("brief")
def test_more_time_does_not_help_a_text_that_is_learned(drakegpt, lyrics):
    write(drakegpt, lyrics, "--minutes", 0.2)
    before = json.dumps([run.info for run in list_runs()])
    more = write(drakegpt, lyrics, "--minutes", 1)
    assert "more time would not" in more.err
    assert json.dumps([run.info for run in list_runs()]) == before


@pytest.mark.usefixtures("brief")
def test_a_text_that_is_not_learned_yet_is_trained_further(drakegpt, lyrics, monkeypatch):
    monkeypatch.setattr("drakegpt.runs.writers.judge_trend", lambda _: Trend("falls"))
    first = write(drakegpt, lyrics, "--minutes", 0.2)
    assert "learned" not in first.err
    before = list_runs()[0].last_evaluation["iteration"]
    more = write(drakegpt, lyrics, "--minutes", 0.1)
    assert "0.1 more minutes" in more.err
    [run] = list_runs()
    assert run.last_evaluation["iteration"] > before
    assert run.config.max_epochs == 0


@pytest.mark.usefixtures("brief")
def test_a_changed_folder_is_noticed_though_a_dataset_has_its_name(drakegpt, tmp_path, monkeypatch):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(TEXT[number * 900 :][:900], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    write(drakegpt, "songs", "--minutes", 0.2)
    (folder / "more.txt").write_text(TEXT[-900:], encoding="utf-8")
    assert (
        "has changed: a new model is trained on it"
        in write(drakegpt, "songs", "--minutes", 0.2).err
    )
    assert len(list_runs()) == 2


@pytest.mark.parametrize("lines", [3, 12])
def test_a_very_short_text_is_enough(drakegpt, tmp_path, lines):
    """Shorter than a context, though hardly worth it."""
    path = tmp_path / "short.txt"
    path.write_text("la la la, the night is long, oh\n" * lines, encoding="utf-8")
    done = write(drakegpt, path, "--minutes", 0.1)
    assert done.out.strip()


def test_an_interrupted_training_is_gone_on_with(drakegpt, lyrics, monkeypatch):
    from drakegpt.runs import writers
    from drakegpt.runs.session import train_run

    small = {
        "recipe": "best", "embedding_dim": 16, "num_heads": 2, "num_layers": 1, "batch_size": 4,
        "context_length": 16, "max_epochs": 3,
    }  # fmt: skip
    monkeypatch.setattr("drakegpt.runs.writers.choose_text_settings", lambda *_, **__: dict(small))
    assert drakegpt("data", "fetch", lyrics).code == 0
    from drakegpt.data import dataset

    run = writers.start_writer(dataset.load("my-lyrics"), 0.2)
    assert not train_run(run, stop=lambda: True)
    done = write(drakegpt, lyrics)
    assert "Resuming" in done.err
    assert [each.name for each in list_runs()] == [run.name]
    assert list_runs()[0].finished


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing.txt",), "nothing.txt"),
        (("--minutes", "0"), "minutes"),
        (("--minutes", "x"), "minutes"),
        (("--temperature", "-1"), "temperature"),
    ],
)
def test_mistakes_are_sentences(drakegpt, arguments, said, home):
    done = drakegpt("write", *arguments)
    assert done.code == 2 or (done.code == 1 and said == "nothing.txt")
    assert said in done.err
    assert "Traceback" not in done.err
    assert not list((home / "runs").glob("*"))


# --- The prompt in a terminal -------------------------------------------------------------------


class Model:
    """Continues a text with its number of calls; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, text, number, length, temperature):
        self.asked.append((text, number, temperature))
        return [f" {len(self.asked)}{place}\nmore" for place in range(number)]


def test_lines_are_continued_and_commands_obeyed():
    model = Model()
    talk = Conversation(model, 0.8)
    assert talk.answer("late night") == "late night 10\nmore"
    assert talk.answer("/again") == "late night 20\nmore"
    assert talk.answer("/temperature 0.5") == "The temperature is 0.5."
    talk.answer("/again")
    assert model.asked[-1] == ("late night", 1, 0.5)
    shown = talk.answer("/lines 3")
    assert shown.splitlines() == ["1   40", "2   41", "3   42", "A number takes that line."]
    assert talk.answer("2") == "late night 41"
    assert talk.text == "late night 41\n"
    assert model.asked[-1][1] == 3
    talk.answer("/lines")
    assert model.asked[-1] == ("late night 41\n", 5, 0.5)


@pytest.mark.parametrize("line", ["/", "/help", "/nonsense", "/lines5"])
def test_other_commands_show_what_there_is(line):
    told = Conversation(Model(), 0.8).answer(line)
    assert told == f"There is no command {line}. {HELP}"


@pytest.mark.parametrize("value", ["", "x", "-1", "11", "nan", "1e9"])
def test_a_temperature_out_of_range_changes_nothing(value):
    talk = Conversation(Model(), 0.8)
    assert "0.8" in talk.answer(f"/temperature {value}")
    assert talk.temperature == 0.8


@pytest.mark.parametrize(("asked", "number"), [("0", 1), ("99", 20), ("", 5), ("7", 7)])
def test_the_number_of_lines_is_bounded(asked, number):
    model = Model()
    Conversation(model, 0.8, "a").answer(f"/lines {asked}")
    assert model.asked[0][1] == number


def test_a_number_of_lines_is_a_number():
    model = Model()
    assert "Give a number of lines" in Conversation(model, 0.8, "a").answer("/lines x")
    assert not model.asked


def test_a_number_without_an_offer_is_a_text():
    model = Model()
    Conversation(model, 0.8).answer("7")
    assert model.asked == [("7", 1, 0.8)]


# --- The screen while it trains -----------------------------------------------------------------


def test_a_loss_in_words():
    assert describe_loss(1.3862943611198906) == (
        "2.00 bits per character, as unsure as among 4.0 letters"
    )


def test_the_first_lines_of_a_sample_that_hold_something():
    assert choose_lines("\n\n one \n\ntwo\nthree") == ["one", "two"]
    assert choose_lines("") == []
