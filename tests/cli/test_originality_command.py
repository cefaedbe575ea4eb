"""`drakegpt eval --originality`: how much a run or a file copies."""

import pytest
from learning import prepare

SONGS = [
    f"the {n} trains are leaving town tonight\nand {n * n} birds are on the wire" for n in range(30)
]
COPIED = "trains are leaving town tonight"


@pytest.fixture
def songs(tmp_path, drakegpt):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number, song in enumerate(SONGS):
        (folder / f"song {number}.txt").write_text(song + "\n", encoding="utf-8")
    assert drakegpt("data", "add", folder).code == 0
    return "songs"


def test_a_file_that_copies_is_shown_with_its_sources(drakegpt, songs, tmp_path):
    draft = tmp_path / "draft.txt"
    draft.write_text(f"i say that {COPIED}\nbut nothing of it is my own", encoding="utf-8")
    shown = drakegpt("eval", "--originality", "--file", draft, "--data", songs)
    assert shown.code == 0, shown.err
    assert "people: each song, in all the others" in shown.out
    assert "«" in shown.out
    assert COPIED in shown.out.partition("«")[2].partition("»")[0]
    assert "in song " in shown.out
    as_json = drakegpt("eval", "--originality", "--file", draft, "--data", songs, "--json").json
    assert as_json["all"]["longest"]["length"] >= len(COPIED)
    assert as_json["people"]["whole"]["longest"]["length"] > 20
    assert len(as_json["all"]["novelty"]) == 60


def test_a_run_is_judged_by_what_it_writes(drakegpt, songs):
    train = ("train", "BigramLM", "--iters", 20, "--eval-iters", 1, "--name", "r", "-q")
    assert drakegpt(*train, "--data", songs).code == 0
    judge = ("eval", "r", "--originality", "--samples", 3, "--length", 50)
    shown = drakegpt(*judge)
    assert shown.code == 0, shown.err
    assert "3 texts of r" in shown.out
    assert "people, in blocks of 50 characters" in shown.out
    as_json = drakegpt(*judge, "--json").json
    assert [len(text) for text in as_json["texts"]] == [50, 50, 50]
    assert as_json["all"]["characters"] == 150
    assert drakegpt(*judge, "--json").json == as_json  # seeds 1, 2, 3


def test_text_without_songs_is_set_beside_the_validation_split(drakegpt, home):
    prepare("\n".join(f"line {n} of a plain text that has no songs" for n in range(200)), "plain")
    train = ("train", "BigramLM", "--iters", 20, "--eval-iters", 1, "--name", "r", "-q")
    assert drakegpt(*train, "--data", "plain").code == 0
    shown = drakegpt("eval", "r", "--originality", "--samples", 2, "--length", 40)
    assert "people: the validation text, in the training text" in shown.out, shown.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("r", "--samples", 3), "--samples is for --originality"),
        (("r", "--file", "x.txt"), "--file is for --originality"),
        (("r", "--originality", "--file", "x.txt"), "--file is judged without a run"),
        (("r", "--originality", "--counts"), "--originality judges one run"),
        (("--originality", "--file", "missing.txt", "--data", "songs"), "missing.txt"),
        (("r", "--originality", "--length", 5), "--length"),
    ],
)
def test_mistakes_are_sentences(drakegpt, songs, arguments, said):
    train = ("train", "BigramLM", "--iters", 5, "--eval-iters", 1, "--name", "r", "-q")
    assert drakegpt(*train, "--data", songs).code == 0
    refused = drakegpt("eval", *arguments)
    assert refused.code == 2
    assert said in refused.err
