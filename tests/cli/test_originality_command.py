"""`drakegpt eval --originality`: how much a run or a file copies."""

import json

import pytest
from learning import prepare

from drakegpt.runs import brief_originality

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


def test_the_lines_of_a_draft_as_a_run_reads_them(drakegpt, songs, tmp_path):
    train = (
        "train",
        "BigramLM",
        "--iters",
        200,
        "--lr",
        0.02,
        "--eval-iters",
        1,
        "--name",
        "r",
        "-q",
    )
    assert drakegpt(*train, "--data", songs).code == 0
    draft = tmp_path / "draft.txt"
    draft.write_text("the 3 trains are leaving town at night\n\nqzxj vwqk\n", encoding="utf-8")
    shown = drakegpt("eval", "r", "--originality", "--file", draft)
    assert shown.code == 0, shown.err
    assert "the 3 trains are leaving town tonight" in shown.out
    lines = drakegpt("eval", "r", "--originality", "--file", draft, "--json").json["lines"]
    # The letters that the text has not are left out.
    assert [line["text"][:5] for line in lines] == ["the 3", " vw"]
    assert lines[0]["nearest"] == "the 3 trains are leaving town tonight"
    assert lines[0]["similarity"] > 0.9
    assert lines[0]["bits_per_character"] < lines[1]["bits_per_character"]
    assert lines[1]["nearest"] == ""


def test_a_draft_is_read_in_the_characters_of_the_text(drakegpt, songs, tmp_path):
    draft = tmp_path / "draft.txt"
    draft.write_text("The 3 Trains Are Leaving Town Tonight ✨", encoding="utf-8")
    shown = drakegpt("eval", "--originality", "--file", draft, "--data", songs)
    assert "«the 3 trains are leaving town tonight" in shown.out
    assert "T → t" in shown.err
    assert "✨" in shown.err


def test_the_figure_is_kept_as_png_and_svg(drakegpt, songs, home, tmp_path):
    draft = tmp_path / "draft.txt"
    draft.write_text("trains leave at night", encoding="utf-8")
    shown = drakegpt("eval", "--originality", "--file", draft, "--data", songs)
    for suffix in ("png", "svg"):
        file = home / "comparisons" / "songs" / f"originality_of_a_file.{suffix}"
        assert file.stat().st_size > 5000
        assert str(file) in shown.err.replace("\n", "")


@pytest.fixture
def memorizer(drakegpt):
    """A run that knows a short text by heart, and held out another one."""
    whole = "".join(
        f"{first}{second} is one and {second}{first} another\n"
        for first in "abcdefgh"
        for second in "klmnop"
    )
    other = "nothing of this was written before: who could have known that a hundred and fifty "
    prepare(
        whole + other + "characters are the tenth of a text that is held out, for a judge?\n",
        "short",
    )
    size = ("--embedding-dim", 64, "--num-layers", 2, "--context-length", 32, "--batch-size", 16)
    train = ("train", "TransformerLM", "--iters", 300, "--eval-interval", 30, "--eval-iters", 1)
    made = drakegpt(*train, *size, "--max-lr", 3e-3, "--data", "short", "--name", "m", "-q")
    assert made.code == 0, made.err
    return "m"


def test_a_model_that_memorizes_is_named_with_the_iteration(drakegpt, memorizer):
    judged = drakegpt("eval", memorizer, "--originality", "--samples", 4, "--length", 160)
    found = drakegpt(
        "eval", memorizer, "--originality", "--samples", 4, "--length", 160, "--json"
    ).json
    shares = {each["iteration"]: each["share"] for each in found["course"]}
    assert shares[min(shares)] < 0.1 < shares[300]
    start = found["memorizes_from"]
    assert 30 < start <= 300
    assert all(share > 0.1 for iteration, share in shares.items() if iteration >= start)
    assert (
        f"m memorizes: it copies more than people do, first seen at iteration {start}"
        in " ".join(judged.out.split())
    )
    of_best = ("eval", memorizer, "--originality", "--samples", 4, "--length", 160, "--best")
    before = drakegpt(*of_best, "--json").json
    assert before["all"]["shares"][0] < found["all"]["shares"][0] / 2


def test_texts_are_kept_from_copying(drakegpt, memorizer):
    ask = ("generate", memorizer, "-n", 300, "--seed", 1, "--json", "--originality")
    free = drakegpt(*ask).json
    assert len(free["longest_copy"]) > 30
    assert free["copied_shares"]["20"] > free["held_out_shares"]["20"]
    limited = drakegpt(*ask, "--max-copy", 12).json
    assert limited["max_copy"] == 12
    assert len(limited["longest_copy"]) <= 12
    assert limited["copied_shares"]["20"] == 0
    told = drakegpt(*ask[:-2], "--originality", "--max-copy", 12).err
    assert f"Longest run copied from the text: {len(limited['longest_copy'])} characters" in told
    prompted = drakegpt(*ask, "--max-copy", 12, "--prompt", "ak is one and ka ").json
    assert len(prompted["longest_copy"]) <= 12


def test_a_comparison_tells_and_its_report_shows_what_is_copied(drakegpt, memorizer, tmp_path):
    page = tmp_path / "report.html"
    shown = drakegpt("compare", "--data", "short", "--html", page)
    assert shown.code == 0, shown.err
    table = shown.out.partition("Is it copying?")[2]
    found = drakegpt("compare", "--data", "short", "--json").json["originality"]
    judged = found["runs"]["m"]
    assert judged["share"] > 0.3 > 0.1 > found["people"]["share"]
    mixed = found["with_counts"]["m"]["share"]
    assert found["counting"]["share"] > 0.3
    for text in (
        "TransformerLM", f"{judged['share']:.1%}", "people", "TransformerLM + counts",
        f"seen at {judged['memorizes_from']}", "counts alone", f"{mixed:.1%}",
    ):  # fmt: skip
        assert text in table
    card = page.read_text(encoding="utf-8").partition('<section id="originality"')[2]
    start, end = judged["spans"][0]
    assert f"<mark>{judged['text'][start:end]}" in card
    assert f"first seen at iteration {judged['memorizes_from']}" in card


def test_a_judgement_is_kept_until_the_weights_change(drakegpt, memorizer, home, monkeypatch):
    stored = home / "runs" / "m" / "originality.json"
    first = drakegpt("compare", "--data", "short", "--json").json["originality"]
    with monkeypatch.context() as patch:
        patch.setattr(brief_originality, "load_members", None)
        patch.setattr(brief_originality, "write_texts", None)  # counts alone write nothing either
        assert drakegpt("compare", "--data", "short", "--json").json["originality"] == first
    (of_counts,) = home.glob("data/short/*/originality_of_counts.json")
    for kept in (stored, of_counts):
        kept.write_text(kept.read_text("utf-8").replace('"spans": [', '"spans": [1, '), "utf-8")
        assert drakegpt("compare", "--data", "short", "--json").json["originality"] == first
    assert json.loads(of_counts.read_text("utf-8"))["judgement"] == first["counting"]
    assert drakegpt("train", "--resume", "m", "--iters", 310, "-q").code == 0
    again = drakegpt("compare", "--data", "short", "--json").json["originality"]
    assert again["runs"]["m"]["text"] != first["runs"]["m"]["text"]


def test_with_counts_copying_is_limited_unless_it_is_allowed(drakegpt, memorizer):
    ask = ("generate", memorizer, "-n", 300, "--seed", 1, "--json", "--counts", "--originality")
    limited = drakegpt(*ask).json
    # Nothing of the held-out text stands in the other, so it is what counts as copied anywhere.
    assert limited["max_copy"] == 20
    assert len(limited["longest_copy"]) <= 20
    free = drakegpt(*ask, "--max-copy", 0).json
    assert free["max_copy"] is None
    assert len(free["longest_copy"]) > 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("r", "--samples", 3), "--samples is for --originality"),
        (("r", "--file", "x.txt"), "--file is for --originality"),
        (("r", "--originality", "--file", "x.txt", "--samples", 3), "--file is one text"),
        (("r", "--originality", "--file", "x.txt", "--best"), "--file is one text"),
        (("r", "--originality", "--file", "x.txt", "--counts"), "--originality judges one run"),
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
