"""The report's HTML, without a browser: whole, alone, the same again, and true to its figures."""

import dataclasses
import os
import re
import sys
from importlib import resources
from itertools import product
from pathlib import Path

import pytest
from learning import prepare, record, train
from report_pages import HOSTILE, Tree, as_shown, corpus_with_stanzas, page_of

import drakegpt
from drakegpt.config import LADDER
from drakegpt.data.sources import fetch
from drakegpt.errors import UsageError
from drakegpt.evaluation.surprisal import Piece, Verse
from drakegpt.experiments.claims import TITLE, check_claims
from drakegpt.models.registry import MODELS
from drakegpt.report.page import (
    COLOUR_STEPS,
    SECTIONS,
    LossScale,
    quote_piece,
    replace_forbidden,
    summarize_surprisal,
)
from drakegpt.report.plots import Mark, assign_marks
from drakegpt.report.target import check_target
from drakegpt.runs.stored_samples import list_samples


@pytest.fixture(params=["ordinary", "hostile"])
def page(request):
    return request.getfixturevalue(request.param)


def rows_of(text, number=0):
    """The cells of each row of a table: the first has all figures, the second those of training."""
    table = re.findall(r"<table>(.*?)</table>", text, re.S)[number]
    return [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr>.*?</tr>", table, re.S)
    ]


def test_the_page_is_whole_and_every_reference_leads_somewhere(page):
    tree = Tree(page.text)
    ids = tree.ids()
    assert len(ids) == len(set(ids))
    references = [
        word
        for _, given, _ in tree.elements
        for name in ("aria-labelledby", "aria-describedby")
        for word in given.get(name, "").split()
    ]
    references += [given["href"][1:] for _, given, _ in tree.elements if "href" in given]
    references += re.findall(r"url\(#([^)]*)\)", page.text)
    assert references
    assert set(references) <= set(ids)


def test_the_page_needs_nothing_from_elsewhere(page):
    tree = Tree(page.text)
    tags = {tag for tag, _, _ in tree.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base", "audio"}
    for tag, given, _ in tree.elements:
        assert not {name for name in given if name.startswith("on") or name == "src"}, tag
        assert given.get("href", "#").startswith("#")
        assert "http:" not in str(given)
        assert "https:" not in str(given)
    assert not re.search(r"url\((?!#)|@import", page.text)


def test_the_same_comparison_gives_the_same_bytes(lasting, ordinary, monkeypatch):
    from drakegpt.data import dataset

    monkeypatch.setenv("DRAKEGPT_HOME", str(lasting / "home"))
    again = page_of(dataset.load("small"), lasting / "again.html", prompt="the ", claims=True)
    assert again.path.read_bytes() == ordinary.path.read_bytes()


def test_figures_in_the_table_are_those_of_the_comparison(ordinary):
    comparison = ordinary.comparison
    head, *body = rows_of(ordinary.text)
    assert head == [
        "model", "bits/char", "gain (nats)", "parameters", "train (nats)", "validation (nats)",
        "perplexity",
    ]  # fmt: skip
    assert len(body) == len(comparison.rows) + len(comparison.others) == 7
    for row, cells in zip((*comparison.rows, *comparison.others), body, strict=True):
        shown = dict(zip(head, cells, strict=True))
        assert row.label in shown["model"]
        assert shown["parameters"] == f"{row.parameters:,}"
        assert shown["bits/char"] == f"{row.bits_per_character:.3f}"
        alike = row in comparison.rows
        spread = f" ± {row.val_spread:.4f}" if row.val_spread else ""
        assert shown["validation (nats)"] == (f"{row.val_loss:.4f}{spread}" if alike else "")
        assert shown["gain (nats)"] == row.formatted_gain
        assert (row.gain is None) == (row is comparison.rows[0] or not alike)
    assert sum(" ± " in cell for cells in body for cell in cells) == 2  # BlocksLM's three seeds
    assert "overfits from" not in head  # nothing to say
    head, *body = rows_of(ordinary.text, 1)
    assert head == ["model", "iterations", "seconds", "tokens/s", "seeds"]
    seeds = [cells[-1] for cells in body]
    rows = (*comparison.rows, *comparison.others)
    assert seeds == [", ".join(map(str, row.seeds)) for row in rows]


def test_units_stand_with_the_numbers_and_one_sentence_relates_them(ordinary, home, tmp_path):
    words = words_of(ordinary)
    relation = "Bits per character and nats measure the same, the surprise of a model: "
    assert words.count(f"{relation}1 nat = 1.44 bits.") == 1
    assert words.index(relation) < words.index("bits/char")
    assert "while training, in nats per character (1 nat = 1.44 bits): neighbours may" in words
    assert not re.search("gain, [0-9.]+, is", words)
    data = prepare(corpus_with_stanzas(), tokenizer="bpe", vocab_size=300)
    train(data, "BigramLM")
    tokens = words_of(page_of(data, tmp_path / "tokens.html"))
    per_token = "bits. The nats are per token of 300 here, and a token may be several characters."
    assert per_token in tokens
    assert "The nats are" not in words


def test_it_is_told_how_the_text_was_divided(ordinary, home, tmp_path):
    assert "trained on the first 90 % of a text" in words_of(ordinary)
    assert "here its last tenth" in words_of(ordinary)
    folder = tmp_path / "songs"
    folder.mkdir()
    for number, stanza in enumerate(corpus_with_stanzas().split("\n\n")):
        (folder / f"{number}.txt").write_text(f"{stanza}\nsong {number}\n", encoding="utf-8")
    data = fetch(str(folder)).dataset
    assert data.metadata.split == "songs"
    train(data, "BigramLM")
    words = words_of(page_of(data, tmp_path / "page.html"))
    assert "trained on whole songs, the larger part of a text" in words
    assert "here whole songs." in words
    assert "90 %" not in words


def test_sequences_are_counted_up_to_the_order(ordinary):
    words = words_of(ordinary)
    lowest = ordinary.comparison.lowest_baseline
    told = f"counts of {lowest.ngrams:,} different sequences of up to {lowest.order} characters."
    assert told in words
    assert "stores every different sequence of up to n characters" in words
    assert '<th scope="col">sequences</th>' in ordinary.text


def test_the_name_of_the_data_is_told_from_the_sentence(ordinary, hostile, home, tmp_path):
    for page in (ordinary, hostile):
        tree, name = Tree(page.text), page.comparison.data
        shown = as_shown(name)
        assert tree.all("title")[0][1] == f"The ladder on “{shown}” – drakegpt"
        assert tree.all("h1")[0][1] == f"The ladder on “{shown}”"
        h1 = re.search("<h1>(.*?)</h1>", page.text)[1]
        assert re.fullmatch("The ladder on “<bdi>[^<>]*</bdi>”", h1)
        lead = " ".join(tree.all("p", class_="lead")[0][1].split())
        assert f"a text called “{' '.join(shown.split())}” (" in lead
        tested = "characters), and tested on the rest, which they never saw (the validation text)."
        assert tested in lead
    data = prepare(corpus_with_stanzas())
    train(data, "GPT1LM", embedding_dim=16, num_layers=1, num_heads=2)
    alone = Tree(page_of(data, tmp_path / "alone.html").text)
    assert alone.all("h1")[0][1] == "GPT1LM on “small”"
    lead = " ".join(alone.all("p", class_="lead")[0][1].split())
    assert "It was trained on" in lead
    assert "which it never saw" in lead


def test_a_number_is_never_parted_from_its_per_cent_sign(ordinary):
    (lead,) = (text for _, text in Tree(ordinary.text).all("p", class_="lead"))
    assert re.findall(r"\d(\s*)%", lead) == [
        "\u00a0",
        "\u00a0",
    ]  # of the split, and of shared lines
    assert set(re.findall(r"\d(\s*)%", "".join(Tree(ordinary.text).all("main")[0][1]))) <= {
        "\u00a0"
    }


def test_the_glossary_begins_with_what_beginners_know(ordinary):
    text = re.search(r'<dl class="glossary">(.*?)</dl>', ordinary.text, re.S)[1]
    entries = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    bits = entries["bits per character"]
    assert "nat" not in bits
    assert bits.index("coin toss") < bits.index("As a formula")
    for name in ("nat", "perplexity", "surprisal"):
        assert entries[name].index("As a formula") > 40
    for name in ("iteration", "Kneser-Ney", "validation text, held-out text", "network"):
        assert name in entries
    assert "weight" not in entries["parameter"] + entries["layer, head"]
    assert "two meanings" in entries["weight"]
    references = {given["href"] for given, _ in Tree(ordinary.text).all("a")}
    assert {"#term-bits", "#term-nat", "#term-validation", "#term-parameter"} <= references


def test_the_ladder_shows_each_rung_with_its_idea(ordinary, hostile):
    for page, trained in ((ordinary, 6), (hostile, 2)):
        tree = Tree(page.text)
        rungs = tree.all("li", class_="rung") + tree.all("li", class_="rung missing")
        assert sorted(given["value"] for given, _ in rungs) == list("123456")
        assert len(tree.all("li", class_="rung")) == trained
        for given, text in rungs:
            model = LADDER[int(given["value"]) - 1]
            assert model in text
            assert MODELS[model].idea in text
    missing = Tree(hostile.text).all("li", class_="rung missing")
    assert all("drakegpt train " in text for _, text in missing)


def test_claims_and_floors_are_shown_as_they_are(ordinary):
    tree = Tree(ordinary.text)
    text = " ".join("".join(tree.all("main")[0][1]).split())
    claims = check_claims(ordinary.comparison.rows)
    assert len(claims) == 3
    assert '<div class="beside">\n<ul class="findings">' in ordinary.text
    assert TITLE in text
    for claim in claims:
        assert claim.claim in text
        assert claim.finding in text
    verdicts = [text for _, text in tree.all("strong", class_="verdict")]
    assert verdicts == [claim.verdict for claim in claims]
    for baseline in ordinary.comparison.baselines:
        bits, ngrams = f"{baseline.score.bits_per_character:.3f}", f"{baseline.ngrams:,}"
        cells = "</td><td>".join([bits, f"{baseline.score.loss:.4f}", ngrams])
        assert f"<td>{cells}</td>" in ordinary.text


def test_samples_stand_with_their_models_and_their_command(ordinary):
    tree = Tree(ordinary.text)
    shown = [text for given, text in tree.all("div", class_="text sample")]
    texts = ordinary.samples.texts.values()
    assert shown == [replace_forbidden(text.rstrip("\n")) for text in texts]
    assert "drakegpt generate RUN --seed 42 --length 160 --prompt &#39;the &#39;" in ordinary.text


def test_texts_written_in_training_stand_with_their_losses(tmp_path):
    data = prepare(corpus_with_stanzas())
    run = train(data, "BigramLM", iters=320, eval_interval=32)
    samples = list_samples(run.evaluations)
    assert len(samples) > 1
    tree = Tree(page_of(data, tmp_path / "page.html").text)
    (section,) = (text for _, text in tree.all("section", id="learning"))
    for sample in (samples[0], samples[-1]):
        assert sample.text.strip("\n") in section
        assert f"{sample.val_loss:.2f} after {sample.iteration} iterations" in section
    assert tree.all("a", href="#learning")


def test_a_page_of_runs_without_such_texts_has_no_place_for_them(ordinary):
    assert "learning" not in Tree(ordinary.text).ids()


def test_every_run_has_the_command_that_makes_it(ordinary):
    commands = [text for _, text in Tree(ordinary.text).all("pre")]
    assert commands[0] == "drakegpt data fetch test --name small"
    assert (
        commands[1] == "drakegpt data fetch test --name small-bpe --tokenizer bpe --vocab-size 290"
    )
    runs = [
        run for row in (*ordinary.comparison.rows, *ordinary.comparison.others) for run in row.runs
    ]
    assert len(commands) == 2 + len(runs) == 11
    assert sum("--seed 43" in command for command in commands) == 1
    assert all(f"<bdi>{run}</bdi>" in ordinary.text for run in runs)


def test_hostile_text_is_text(hostile):
    """Besides the verse and the samples, which are compared in full."""
    tree = Tree(hostile.text)
    (verse,) = [text for _, text in tree.all("div", class_="text verse plain")]
    assert verse == as_shown("\n".join(HOSTILE))
    for given, text in tree.all("div", class_="text verse"):
        assert text.replace("⏎\n", "\n") == verse
        assert given["aria-hidden"] == "true"
    samples = [text for _, text in tree.all("div", class_="text sample")]
    assert samples == [as_shown(text) for text in hostile.samples.texts.values()]
    forbidden = [
        c for c in hostile.text if (ord(c) < 32 and c not in "\n\t") or ord(c) in (0x7F, 0x85)
    ]
    assert not forbidden


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\0\r\x0c\x1fb", "a␀␍␌␟b"),
        ("\x7f\x80\ud800\uffff\ufdd0", "␡����"),
        ("\t\n é😀\u202e", None),
    ],
)
def test_what_html_forbids_is_seen_as_a_picture(text, shown):
    assert replace_forbidden(text) == (text if shown is None else shown)


def words_of(page):
    return " ".join("".join(Tree(page.text).all("body")[0][1]).split())


def test_the_page_explains_what_is_on_it_and_nothing_else(home, tmp_path, ordinary):
    words = words_of(ordinary)
    for there in ("its line is their mean. The band", "Dashed lines:", "Gain: decrease", "filled)",
                  "Seconds are of"):  # fmt: skip
        assert there in words
    assert "A triangle" not in words
    assert "drakegpt compare --data" not in words
    assert f"Written by drakegpt {drakegpt.__version__}." in words

    data = prepare(corpus_with_stanzas())
    run = train(data, "GPT1LM", embedding_dim=16, num_layers=1, num_heads=2)
    alone = words_of(page_of(data, tmp_path / "alone.html"))
    for absent in ("Dashed lines", "Drawn through", "A triangle", "band", "Gain:"):
        assert absent not in alone
    assert "Seconds are of" in alone
    (run.folder / "metrics.jsonl").unlink()
    info = (run.folder / "run.json").read_text()
    (run.folder / "run.json").write_text(info.replace("{", '{"imported_from": "x.pt",', 1))
    assert "Seconds are of" not in words_of(page_of(data, tmp_path / "alone.html"))


def test_a_single_run_has_a_report(home, tmp_path):
    data = prepare(corpus_with_stanzas())
    train(data, "BlocksLM")
    page = page_of(data, tmp_path / "r.html")
    Tree(page.text)
    assert "claims" not in words_of(page)
    assert '<div>\n<ul class="findings">' in page.text
    assert len(rows_of(page.text)) == 2


def test_runs_without_curves_have_a_report_without_them(home, tmp_path):
    data = prepare(corpus_with_stanzas())
    for model in LADDER[:2]:
        run = train(data, model)
        (run.folder / "metrics.jsonl").unlink()
        info = (run.folder / "run.json").read_text()
        added = info.replace("{", '{"imported_from": "x.pt",', 1)
        (run.folder / "run.json").write_text(added)
    page = page_of(data, tmp_path / "r.html")
    tree = Tree(page.text)
    assert not tree.all("figure")
    assert 'href="#curves"' not in page.text
    assert [text for _, text in tree.all("pre")] == ["drakegpt data fetch test --name small"]
    assert page.text.count("trained by the original project, and imported") == 2


def test_a_ladder_that_reads_bpe_has_a_report(home, tmp_path):
    data = prepare(corpus_with_stanzas(), tokenizer="bpe", vocab_size=300)
    for model in LADDER[:2]:
        train(data, model)
    page = page_of(data, tmp_path / "r.html")
    Tree(page.text)
    assert "nats per token of 300" in " ".join(page.text.split())


def test_others_alone_have_a_report(home, tmp_path):
    data = prepare(corpus_with_stanzas())
    train(data, "GPT1LM", embedding_dim=16, num_layers=1, num_heads=2)
    page = page_of(data, tmp_path / "r.html")
    tree = Tree(page.text)
    assert not tree.all("ol", class_="rungs")
    assert len(tree.all("figure")) == 1  # bits over time


def test_both_sizes_are_two_ladders(home, tmp_path):
    data = prepare(corpus_with_stanzas())
    train(data, "BigramLM")
    from drakegpt.config import resolve
    from drakegpt.runs.create import create_run

    shape = {"embedding_dim": 12, "num_layers": 1, "batch_size": 4, "context_length": 8}
    given = {"iters": 2, "eval_iters": 1, "eval_interval": 1, **shape}
    record(create_run(resolve("BigramLM", "scaled", data.name, given), data))
    page = page_of(data, tmp_path / "r.html")
    tree = Tree(page.text)
    assert len(tree.all("ol", class_="rungs")) == 2
    assert {mark.sign for mark in assign_marks(page.comparison).values()} == {"1", "1s"}


# --- where it is written ------------------------------------------------------------------------


def test_a_target_that_cannot_be_is_refused_before_and_left_alone(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UsageError, match="is a folder"):
        check_target(tmp_path)
    with pytest.raises(UsageError, match="No page can be written"):
        check_target(file / "report.html")
    with pytest.raises(UsageError, match="there is no folder"):
        check_target(tmp_path / "a" / "new.html")
    with pytest.raises(UsageError, match="not a page of drakegpt"):
        check_target(file)
    check_target(file, replace=True)
    check_target(tmp_path / "new.html")
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("replace", [False, True])
def test_links_pipes_and_devices_are_never_replaced(tmp_path, replace):
    """A link leads elsewhere, and a report in a device's place would be the end of the device."""
    (tmp_path / "page.html").write_text("mine")
    (tmp_path / "link.html").symlink_to("page.html")
    (tmp_path / "dangling.html").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.html")
    for name in ("link.html", "dangling.html"):
        with pytest.raises(UsageError, match="is a link"):
            check_target(tmp_path / name, replace=replace)
    for path in (tmp_path / "pipe.html", Path("/dev/null")):
        with pytest.raises(UsageError, match="is not a regular file"):
            check_target(path, replace=replace)


def test_a_report_may_be_replaced_by_a_newer_one(home, tmp_path):
    data = prepare(corpus_with_stanzas())
    train(data, "BigramLM")
    page_of(data, tmp_path / "r.html")
    check_target(tmp_path / "r.html")


def test_the_old_report_stays_where_the_new_one_fails(home, tmp_path, monkeypatch):
    from drakegpt.report import page as report

    data = prepare(corpus_with_stanzas())
    train(data, "BigramLM")
    path = tmp_path / "r.html"
    path.write_text("before")
    monkeypatch.setattr(report, "find_verse", lambda data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        page_of(data, path)
    assert path.read_text() == "before"


def test_the_template_is_part_of_the_package():
    sections = [f"sections/{name}.html.j2" for name in (*SECTIONS, "about")]
    for name in ("template.html.j2", "style.css", *sections):
        assert (resources.files("drakegpt.report") / name).is_file()


# --- what is shown of the surprise --------------------------------------------------------------


def test_pieces_are_coloured_by_their_bits_per_character():
    verse = Verse("abcdefgh \n", "")
    bits = [0.5, 1.0, 1.99, 3.9, 5.0, 7.0, 8.0, 20.0, 9.0, 0.1]
    pieces = [Piece(c, b) for c, b in zip(verse.text, bits, strict=True)]
    shown = summarize_surprisal(verse, pieces, Mark("1", "rung-1", "x"))
    coloured = [(piece.text, piece.step) for piece in shown.pieces]
    assert coloured == [
        ("a", 0), ("bc", 1), ("d", 2), ("e", 3), ("f", 4), ("gh ", 5), ("\n", 0)
    ]  # fmt: skip
    assert COLOUR_STEPS == (1, 2, 4, 6, 8)
    assert shown.mean == pytest.approx(sum(bits) / 10)
    assert shown.most == (("abcdefg", "h", 20.0), ("abcdefgh", " ", 9.0), ("abcdef", "g", 8.0))


def test_long_tokens_are_coloured_by_their_share():
    pieces = [Piece("abcd", 8.0), Piece("e", 3.0)]
    shown = summarize_surprisal(Verse("abcde", ""), pieces, Mark("1", "rung-1", "x"))
    assert [(piece.text, piece.step) for piece in shown.pieces] == [("abcde", 2)]
    assert [piece for _, piece, _ in shown.most] == ["e", "abcd"]
    assert shown.mean == pytest.approx(11 / 5)


def test_what_cannot_be_seen_is_named():
    assert quote_piece(" ") == "a space"
    assert quote_piece("\n") == "the end of a line"
    assert quote_piece("x") == "“\u2068x\u2069”"


def test_a_scale_reaches_from_the_lowest_to_the_highest(ordinary):
    scale = LossScale.of(ordinary.comparison)
    rows = ordinary.comparison.rows
    losses = [loss for row in rows for loss in (row.train_loss, row.val_loss)]
    losses += [baseline.score.loss for baseline in scale.baselines]
    places = [float(scale.place(loss)) for loss in losses]
    assert min(places) == 0
    assert max(places) == 100
    assert float(scale.place((scale.low + scale.high) / 2)) == pytest.approx(50, abs=0.01)
    nothing = dataclasses.replace(ordinary.comparison, rows=(), baselines=())
    assert LossScale.of(nothing).place(0.5) == "50.00"


# --- colours ------------------------------------------------------------------------------------


def themes():
    css = (resources.files("drakegpt.report") / "style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.S)[:2]
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", theme)) for theme in (light, dark)]
    return {"light": found[0], "dark": found[1]}


def contrast(one, other):
    """WCAG 2.2's contrast of two colours."""

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_that_is_read_stands_out(theme):
    colours = themes()[theme]
    rungs = [f"rung-{number}" for number in range(1, 7)]
    pairs = [("ink" if step < 4 else "on-strong", f"s{step}") for step in range(1, 6)]
    pairs += product(("ink", "muted", "accent", "other", *rungs), ("paper", "raised"))
    for text, ground in pairs:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
