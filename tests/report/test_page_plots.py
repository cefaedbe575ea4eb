"""The report's figures: what is drawn, in which colours, and what is said of it."""

import dataclasses
import random
import re
from itertools import pairwise

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report_pages import comparison, result, row

from drakegpt.config import LADDER
from drakegpt.evaluation.baseline import Baseline
from drakegpt.evaluation.scoring import Score
from drakegpt.experiments.plots import draw_curves
from drakegpt.report.inline_svg import VARIABLES, stand_in_for, to_inline_svg
from drakegpt.report.plots import (
    LEGEND,
    SIGN_GAP,
    _spread_out,
    _to_letters,
    assign_marks,
    draw_plots,
    explain_signs,
)


def drawn(compared):
    return draw_plots(compared, assign_marks(compared))


def test_both_losses_are_drawn_and_baselines_with_validation_alone():
    baselines = tuple(
        Baseline(order, 8, Score(loss, 9, 9), 99) for order, loss in ((1, 3.5), (2, 3.1), (4, 1.9))
    )
    val, train = drawn(comparison(row("BigramLM", result("r")), baselines=baselines))
    assert "Validation" in val.caption
    assert "Training" in train.caption
    assert ">2-gram<" in val.svg
    assert ">4-gram<" in val.svg
    assert ">1-gram<" not in val.svg
    assert "gram" not in train.svg.partition("</desc>")[2]
    assert "counts" not in train.svg
    assert "BigramLM goes from 3.00 at iteration 10 to 2.00 at 20." in val.description
    assert "BigramLM goes from 4.00 at iteration 10 to 3.00 at 20." in train.description
    assert "Dashed line: 2-gram counts, 3.10. Dashed line: 4-gram counts, 1.90." in val.description
    assert "counts" not in train.description


@pytest.fixture
def annotations(monkeypatch):
    """The texts beside lines, and their places in the axes."""
    places, annotate = {}, Axes.annotate

    def noting(axes, text, *data, xytext, **look):
        places[text] = xytext
        return annotate(axes, text, *data, xytext=xytext, **look)

    monkeypatch.setattr(Axes, "annotate", noting)
    return places


def test_what_a_dashed_line_is_stands_beside_the_axes_where_no_curve_is(annotations):
    """Also where it is as low as the end of a curve."""
    baselines = tuple(
        Baseline(order, 8, Score(loss, 9, 9), 99) for order, loss in ((2, 2.1), (3, 2.05), (4, 2.0))
    )
    rows = [row(model, result(model)) for model in LADDER]
    drawn(comparison(*rows, baselines=baselines))
    assert annotations.keys() == {*"123456", "2-gram", "3-gram", "4-gram"}
    assert {x for x, _ in annotations.values()} == {1.04}
    # The training loss is drawn after it, with signs alone.
    drawn_last = sorted(y for text, (_, y) in annotations.items() if "gram" in text)
    assert all(b - a >= SIGN_GAP - 1e-9 for a, b in pairwise(drawn_last))


def of_tail(name):
    made = result(name)
    evaluations = tuple(e | {"scored_on": "training-tail"} for e in made.evaluations)
    return dataclasses.replace(made, evaluations=evaluations)


def test_a_curve_of_the_tail_is_not_said_to_be_of_validation():
    baselines = (Baseline(4, 8, Score(1.9, 9, 9), 99),)
    tail, plain = row("BlocksLM", of_tail("a")), row("BigramLM", result("b"))
    val, train = alone = drawn(comparison(tail, baselines=baselines))
    assert val.caption == "Held-out tail loss while training"
    assert val.description.startswith("Held-out tail loss in nats")
    assert "counts" not in val.svg + val.description
    assert "tail" not in train.caption + train.description
    assert LEGEND["tail"] in explain_signs(alone)
    both = drawn(comparison(plain, tail, baselines=baselines))
    assert both[0].caption == ("Validation or held-out tail loss while training (tail: BlocksLM)")
    assert "BlocksLM (tail) goes from" in both[0].description
    assert "BigramLM goes from" in both[0].description
    assert ">4-gram<" in both[0].svg
    assert LEGEND["tail"] not in explain_signs(drawn(comparison(plain, baselines=baselines)))


def test_each_line_ends_with_its_sign_in_its_colour():
    rows = [row(model, result(model)) for model in LADDER]
    val, _ = drawn(comparison(*rows))
    for number in range(1, 7):
        assert f'fill="var(--rung-{number})"' in val.svg
        assert f">{number}</text>" in val.svg


def test_seeds_are_a_band_and_a_turn_is_a_triangle():
    plain = row("BlocksLM", result("a", losses=(3.0, 2.0, 2.0)))
    seeds = row("BlocksLM", result("a", 1, (3.0, 2.0, 2.0)), result("b", 2, (3.2, 2.2, 2.1)))
    turned = row("BlocksLM", result("a", losses=(3.0, 2.0, 2.5), best=2.0))
    (one, before), (several, _), (worse, train) = (
        drawn(comparison(r)) for r in (plain, seeds, turned)
    )
    assert 'fill-opacity="0.2"' in several.svg
    assert 'fill-opacity="0.2"' not in one.svg
    assert "the mean of 2 seeds" in several.description
    assert worse.svg.count("<use") == one.svg.count("<use") + 1
    assert train.svg.count("<use") == before.svg.count("<use")
    assert "lowest at about iteration 20" in worse.description
    assert "lowest" not in train.description


@pytest.fixture
def triangles(monkeypatch):
    """The places of all triangles, as they are drawn."""
    places, plot = [], Axes.plot

    def noting(axes, *data, **look):
        (line, *_) = lines = plot(axes, *data, **look)
        if line.get_marker() == "v":
            places.extend(zip(line.get_xdata(), line.get_ydata(), strict=True))
        return lines

    monkeypatch.setattr(Axes, "plot", noting)
    return places


def test_both_figures_have_a_triangle_wherever_a_row_turned(home, triangles):
    turning = {"losses": (3.0, 2.8, 2.0, 2.5), "best": 2.0}
    one, other = result("a", 1, **turning), result("b", 2, (3.0, 2.8, 2.2, 2.6), best=2.2)
    stopped = result("c", 3, (3.0, 2.0))  # before the others turn
    diverged = result("d", 3, (3.0, 2.0, float("nan"), float("nan")))
    for results, loss in (
        ((one,), 2.0),
        ((one, other), 2.1),
        ((one, other, stopped), 2.1),
        ((one, other, diverged), 2.1),
    ):
        turned = row("BlocksLM", *results)
        assert turned.overfits_from == 30
        draw_curves("d", [turned])
        drawn(comparison(turned))
        assert triangles == [(30, pytest.approx(loss))] * 2
        triangles.clear()
    draw_curves("d", [row("BlocksLM", stopped)])
    drawn(comparison(row("BlocksLM", stopped)))
    assert triangles == []


def test_others_are_drawn_in_bits_over_time():
    other = dataclasses.replace(
        row("GPT1LM", result("o", losses=(4.0, 3.0))), tokenizer="bpe", vocab_size=300
    )
    val, train, bits = drawn(comparison(row("BigramLM", result("r")), others=(other,)))
    assert "GPT1LM (300 BPE tokens) ends at 3.00 after 2 s." in bits.description
    assert "GPT1LM" not in val.description + train.description
    assert ">a</text>" in bits.svg


def told(*rows, **given):
    """Which signs the page explains."""
    meant = explain_signs(drawn(comparison(*rows, **given)))
    return [sign for sign, meaning in LEGEND.items() if meaning in meant]


def test_only_what_is_drawn_is_explained():
    baselines = (Baseline(1, 8, Score(3.1, 9, 9), 99),)
    plain = row("BigramLM", result("r"))
    seeds = row("BlocksLM", result("a", 1), result("b", 2))
    turned = row("TransformerLM", result("t", losses=(3.0, 2.0, 2.5), best=2.0))
    tokens = dataclasses.replace(turned, tokenizer="bpe", vocab_size=300)
    assert told(plain) == []
    tail = row("MultiHeadAttentionLM", of_tail("e"))
    assert told(plain, seeds, turned, tail, baselines=baselines) == list(LEGEND)
    assert told(tokens, baselines=baselines) == ["baselines", "overfitting"]
    # Bits over time have neither levels nor turns, nor a band.
    assert told(others=(turned, seeds), baselines=baselines) == ["mean"]
    assert told(plain, others=(tokens,), baselines=baselines) == ["baselines"]
    unseen = dataclasses.replace(result("t"), evaluations=())
    assert told(row("BigramLM", unseen), baselines=baselines) == []


def test_what_diverged_or_was_not_recorded_is_left_out():
    lost = dataclasses.replace(result("x"), evaluations=())
    assert drawn(comparison(row("BigramLM", lost))) == []
    nan = result("n", losses=(3.0, float("nan")))
    val, _ = drawn(comparison(row("BigramLM", nan), row("BlocksLM", result("r"))))
    assert "nan" not in val.svg
    assert "BigramLM is at 3.00 at iteration 10, and then diverges" in val.description


def test_marks_tell_all_rows_apart():
    large = dataclasses.replace(row("BlocksLM", result("l")), size="scaled")
    others = tuple(row("GPT1LM", result(f"o{n}")) for n in range(28))
    marks = assign_marks(comparison(row("BlocksLM", result("s")), large, others=others))
    signs = [mark.sign for mark in marks.values()]
    assert signs[:4] == ["4", "4s", "a", "b"]
    assert len(set(signs)) == len(signs)
    assert [_to_letters(n) for n in (25, 26, 51, 52)] == ["z", "aa", "az", "ba"]


@pytest.mark.parametrize("seed", range(20))
def test_signs_stand_apart_in_order_and_near_their_lines(seed):
    generator = random.Random(seed)
    values = [generator.random() for _ in range(generator.randint(0, 9))]
    places = _spread_out(values, 0.1)
    ranked = [place for _, place in sorted(zip(values, places, strict=True))]
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(ranked))
    assert sum(places) == pytest.approx(sum(values))  # no push to one side
    assert _spread_out([0.0, 0.5, 1.0], 0.1) == [
        0.0,
        0.5,
        1.0,
    ]  # where there is room, none is moved
    assert _spread_out([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


# --- a figure as part of a page -----------------------------------------------------------------


def svg(text="x", name="n"):
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([1, 2], [1, 2], color=stand_in_for("rung-3"), marker="o")
    axes.set_xlabel(text, color=stand_in_for("ink"))
    return to_inline_svg(figure, name, "T", f"D {text}")


def test_an_inline_figure_brings_nothing_but_itself():
    text = svg()
    for unwanted in ("<?xml", "<!DOCTYPE", "xmlns", "<metadata", "<style", "font-family",
                     "xlink", "#01fe", "Matplotlib"):  # fmt: skip
        assert unwanted not in text
    assert re.match(r'<svg viewBox="[\d. ]+" role="img" aria-labelledby="n-title" ', text)
    assert 'stroke="var(--rung-3)"' in text
    assert 'fill="var(--ink)"' in text


def test_a_figure_has_no_style_attribute_and_no_needless_digit():
    text = svg()
    assert "style" not in text
    geometry = re.findall(r' (?:d|x|y|width|height|viewBox|transform)="([^"]*)"', text)
    numbers = re.findall(r"-?\d*\.?\d+", " ".join(geometry))
    assert len(numbers) > 50
    assert not [number for number in numbers if len(number.partition(".")[2]) > 1]
    assert not re.search(r"<g>|<g [^>]*/>|\n", text)


def numbers_of(path):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]


def test_a_line_and_its_dots_are_at_the_same_places():
    text = svg()
    line = re.search(r'd="M([^"]*)"[^>]*stroke="var\(--rung-3\)" stroke-width="1.5"', text)
    dots = re.search(r'd="(M[^"]*h0)"[^>]*stroke-linecap="round"', text)
    x_1, y_1, x_2, y_2 = numbers_of(line.group(1))
    assert numbers_of(dots.group(1)) == [x_1, y_1, 0, x_2, y_2, 0]
    assert x_1 < x_2
    assert y_1 > y_2  # upwards


def test_two_figures_share_no_id_and_the_same_is_the_same():
    one, other = svg(name="one"), svg(name="other")
    ids = [set(re.findall(r'\bid="([^"]*)"', text)) for text in (one, other)]
    assert not ids[0] & ids[1]
    assert one == svg(name="one")


def test_text_in_a_figure_is_text():
    text = svg("<script>alert(1)</script> &amp;")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;amp;" in text


def test_every_variable_has_a_colour_of_its_own():
    assert len({stand_in_for(name) for name in VARIABLES}) == len(VARIABLES)
