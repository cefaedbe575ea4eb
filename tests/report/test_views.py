"""The views of a live page in a real Chromium: what they show is what Python computes."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from browser import DESKTOP, PHONE, SCHEMES, needs_chromium, violations
from report_pages import Tree

from drakegpt.evaluation.surprisal import compute_token_surprisals
from drakegpt.generation.text import generate_text

pytestmark = [pytest.mark.slow, needs_chromium]

VIEWS = ("write", "ladder", "guess", "surprise", "attention", "learning")
CPU = torch.device("cpu")


@pytest.fixture(params=["living", "living_hostile"])
def page(request):
    return request.getfixturevalue(request.param)


def models_of(page):
    """What the page holds for its scripts."""
    ((_, models),) = Tree(page.text).all("script", id="models")
    return json.loads(models)


def pictured(text):
    """A text as views show it: control characters as pictures."""
    pictures = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    noncharacters = [*range(0x80, 0xA0), 0xFFFE, 0xFFFF]
    return text.translate(pictures | {0x7F: "␡"} | dict.fromkeys(noncharacters, "\ufffd"))


def texts(visit, selector):
    return visit(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def wait_for_text(visit, selector, text):
    visit.wait_for(
        "return document.querySelector(arguments[0]).textContent.includes(arguments[1])",
        selector,
        text,
    )


def elements(visit, selector):
    return visit("return [...document.querySelectorAll(arguments[0])]", selector)


def see(visit, view):
    """Scroll to a view, once it is there."""
    place = f'[data-view="{view}"]'
    visit.wait_for("return document.querySelector(arguments[0]).childElementCount", place)
    visit(
        "document.querySelector(arguments[0]).scrollIntoView()",
        place,
    )
    return place


def see_all(visit):
    """Scroll to each view in turn, and wait for what it shows first."""
    shown = {
        "write": ".bars li:not(.empty)", "ladder": ".paper:not(.blank)", "guess": ".letter",
        "surprise": ".walk [role=gridcell]", "attention": ".walk [role=gridcell]",
        "learning": ".paper",
    }  # fmt: skip
    for view, first in shown.items():
        place = see(visit, view)
        visit.wait_for("return document.querySelector(arguments[0])", f"{place} {first}")


def press(visit, view, label):
    visit(
        "const all = document.querySelectorAll(`[data-view=${arguments[0]}] button`);"
        "[...all].find(each => each.textContent === arguments[1]).click()",
        view,
        label,
    )


def choose(visit, view, index):
    """Choose the model at an index of a view's first choice."""
    visit(
        "const inputs = document.querySelectorAll(`[data-view=${arguments[0]}] fieldset input`);"
        "inputs[arguments[1]].click()",
        view,
        index,
    )


def set_value(visit, selector, value):
    visit(
        "const field = document.querySelector(arguments[0]); field.value = arguments[1];"
        "field.dispatchEvent(new Event('input', {bubbles: true}))",
        selector,
        value,
    )


# --- the page ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_living_page_is_silent_alone_and_accessible(visit, page, width, scheme):
    visit = visit(page, width, scheme)
    see_all(visit)
    visit("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert violations(visit) == {}
    assert visit.said() == []
    assert {url for url in visit.asked_for() if not url.startswith("blob:null/")} == {
        page.path.as_uri()
    }


@pytest.mark.parametrize("width", [320, PHONE, 768, DESKTOP])
def test_no_view_is_wider_than_the_window(visit, page, width):
    visit = visit(page, width)
    see_all(visit)
    visit("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert visit("return document.documentElement.scrollWidth") <= width
    outside = visit(
        "return [...document.querySelectorAll('.view *')].filter("
        "  e => !e.closest('.unseen, .label, .scroll') && e.checkVisibility() &&"
        "  e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


def test_each_view_takes_the_place_of_what_is_still(visit, living):
    visit = visit(living)
    see_all(visit)
    assert visit("return [...document.querySelectorAll('.view')].map(e => e.hidden)") == [False] * 6
    assert visit("return [...document.querySelectorAll('.still')].map(e => e.hidden)") == [True] * 6


def test_hostile_text_is_text_in_every_view(visit, living_hostile):
    visit = visit(living_hostile)
    see_all(visit)
    assert visit("return window.x") is None
    kinds = set(visit("return [...document.querySelectorAll('.view *')].map(e => e.localName)"))
    assert not kinds & {"script", "img", "svg", "iframe", "style", "title"}
    verse = models_of(living_hostile)["text"]
    (walk, *_) = texts(visit, '[data-view="attention"] .walk')
    assert re.sub(r"U\+[0-9A-F]{4,6}|[^\w<>{}]", "", walk) == re.sub(r"[^\w<>{}]", "", verse)
    assert "\u202e" not in walk
    assert "␀" in pictured(verse)
    assert "␀" in walk


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text[: text.index('id="models"')],
        lambda text: re.sub(r'"checksum":(\d)', r'"checksum":\g<1>0', text, count=1),
        lambda text: text.replace('"format":1', '"format":2'),
    ],
    ids=["half", "no models", "checksum", "format"],
)
def test_a_damaged_page_stays_as_it_was_and_says_so(visit, living, tmp_path, spoil):
    path = tmp_path / "damaged.html"
    path.write_text(spoil(living.text), encoding="utf-8", newline="\n")
    assert spoil(living.text) != living.text
    visit = visit(replace(living, path=path))
    said = visit.wait_for("return document.querySelector('main > .failure')?.textContent")
    assert "damaged" in said
    assert "can be read all the same" in said
    assert visit("return [...document.querySelectorAll('.view')].every(e => e.hidden)")
    assert visit("return [...document.querySelectorAll('.still')].every(e => !e.hidden)")
    assert visit.said() == []


def test_a_browser_without_workers_shows_the_static_page(visit, chromium, living):
    command = "Page.addScriptToEvaluateOnNewDocument"
    added = chromium.execute_cdp_cmd(command, {"source": "delete window.Worker"})
    try:
        visit = visit(living)
        said = visit.wait_for("return document.querySelector('main > .failure')?.textContent")
        assert "Worker" in said
        assert visit.said() == []
    finally:
        chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


# --- write ---------------------------------------------------------------------------------------


def write(visit, index):
    """The text that the model at an index writes, with the settings as they are."""
    choose(visit, "write", index)
    press(visit, "write", "Write")
    status = '[data-view="write"] .status'
    visit.wait_for(
        "return document.querySelector(arguments[0]).textContent.includes('seconds')", status
    )
    return texts(visit, '[data-view="write"] .paper .text')[0]


def test_every_model_writes_what_generate_writes(visit, living):
    stored = models_of(living)
    assert {model["precision"] for model in stored["models"]} == {"float32"}
    visit = visit(living, motion="reduce")
    see(visit, "write")
    for index, model in enumerate(stored["models"]):
        assert write(visit, index) == pictured(living.samples.texts[model["name"]])


def test_the_command_beside_the_text_has_the_settings_that_differ(visit, living):
    visit = visit(living, motion="reduce")
    see(visit, "write")
    (command,) = texts(visit, ".command pre")
    name = models_of(living)["models"][5]["name"]
    assert command == f"drakegpt generate {name} --seed 42 --length 160 --prompt 'the '"
    set_value(visit, '[data-view="write"] input[type=range]', "0.5")
    set_value(visit, '[data-view="write"] textarea', "it's 日")
    (command,) = texts(visit, ".command pre")
    assert command.endswith("""--prompt 'it'"'"'s 日' --temperature 0.5 --unknown skip""")
    assert "never saw ' 日" in texts(visit, '[data-view="write"] .field .note')[0]
    assert texts(visit, '[data-view="write"] .given') == ["it's 日"]
    assert texts(visit, '[data-view="write"] .given s') == ["'", "日"]


def test_the_chances_are_those_of_the_text_and_choosing_one_goes_on_from_there(visit, living):
    run = next(run for run in living.runs if run.config.model == "TransformerLM")
    model = run.load_model(CPU)
    visit = visit(living)
    see(visit, "write")
    text = "the "
    for _ in range(3):
        tokens = torch.tensor(run.tokenizer.encode(text)[-model.config.context_length :]).long()
        with torch.no_grad():
            expected = model(tokens[None])[0, -1].softmax(-1).sort(descending=True)
        piece = run.tokenizer.decode([int(expected.indices[1])])
        name = {" ": "space", "\n": "end of line"}.get(piece, piece)
        share = f"{100 * expected.values[1]:.{0 if expected.values[1] >= 0.1 else 1}f} %"
        visit.wait_for(
            "const [, second] = document.querySelectorAll('.bar');"
            "return second.getAttribute('aria-label') === arguments[0]",
            f"{name}, {share}",
        )
        visit("document.querySelectorAll('.bar')[1].click()")
        text += piece
        assert texts(visit, '[data-view="write"] .paper .text') == [text]
    press(visit, "write", "Go on")
    visit.wait_for(
        "const paper = document.querySelector('[data-view=write] .paper');"
        "return paper.textContent.length > arguments[0]",
        len(text) + 3,
    )
    press(visit, "write", "Stop")
    visit.wait_for(
        "return document.querySelector('[data-view=write] .status').textContent.includes('seconds')"
    )
    (written,) = texts(visit, '[data-view="write"] .paper .text')
    expected = "".join(generate_text(model, run.tokenizer, text, 160, seed=42))
    assert (text + expected).startswith(written)
    assert len(written) < len(text + expected)


# --- ladder --------------------------------------------------------------------------------------


def test_the_ladder_writes_the_samples_side_by_side_once_it_is_seen(visit, living):
    visit = visit(living, motion="reduce")
    place = see(visit, "ladder")
    visit.wait_for("return document.querySelectorAll('.card .paper:not(.blank)').length === 6")
    rungs = [model for model in models_of(living)["models"] if model["rung"]]
    expected = [living.samples.texts[model["name"]] for model in rungs]
    visit.wait_for(
        "return [...document.querySelectorAll('.card .text')].every("
        "  text => text.textContent.length > 160)"
    )
    assert texts(visit, f"{place} .card .text") == expected
    assert texts(visit, f"{place} .value") == [f"{model['bits']:.2f}" for model in rungs]


def test_counting_is_a_level_of_the_ladder(visit, living):
    held = models_of(living)
    visit = visit(living)
    place = see(visit, "ladder")
    rungs = [model for model in held["models"] if model["rung"]]
    best, counts = min(rungs, key=lambda model: model["bits"]), held["counts"]
    largest = max(counts["bits"], *(model["bits"] for model in rungs))
    level = visit("return document.querySelector('.slide').style.getPropertyValue('--level')")
    assert float(level) == pytest.approx(counts["bits"] / largest, abs=1e-4)
    stored = {each.order: each.ngrams for each in living.comparison.baselines}[counts["order"]]
    assert (
        f"The line across is counting, {counts['bits']:.2f}, lower than all models: it stores "
        f"{stored:,} sequences of up to {counts['order']} characters, "
        f"while {best['label']} stores {best['parameters']:,} numbers."
    ) in texts(visit, f"{place} .note")[0]
    columns, lines = (
        visit(
            "return [...document.querySelectorAll(arguments[0])].map("
            "  e => [e.getBoundingClientRect().top, e.getBoundingClientRect().bottom])",
            f"{place} .{kind}",
        )
        for kind in ("height", "level")
    )
    for (_, foot), (line, _) in zip(columns, lines, strict=True):
        assert line == pytest.approx(foot, abs=0.6)  # from where the line is drawn up


def test_a_difference_is_that_of_the_numbers_that_are_shown(visit, living, tmp_path):
    """None is told where it may be chance."""
    rungs = [model for model in models_of(living)["models"] if model["rung"]]
    levels = [False, True, *(model["level"] for model in rungs[2:])]
    path, text = tmp_path / "page.html", living.text
    for model, level in zip(rungs, levels, strict=True):
        own = re.compile(f'"bits":{re.escape(str(model["bits"]))},"level":(true|false)')
        text = own.sub(f'"bits":{model["bits"]},"level":{str(level).lower()}', text)
    path.write_text(text, encoding="utf-8", newline="\n")
    visit = visit(replace(living, path=path))
    place = see(visit, "ladder")
    for index, (before, model) in enumerate(pairwise(rungs), start=1):
        set_value(visit, f"{place} input[type=range]", index + 1)
        change = float(f"{before['bits']:.2f}") - float(f"{model['bits']:.2f}")
        how = f"{abs(change):.2f} {'more' if change < 0 else 'less'} than"
        expected = "about the same as" if levels[index] else how
        assert f", {expected} the model before" in texts(visit, f"{place} .idea")[0]


def test_one_can_stop_the_ladder_while_it_writes_and_not_later(visit, living):
    visit = visit(living)
    place = see(visit, "ladder")
    stop = f"return [...document.querySelectorAll('{place} button')].at(-1).disabled"
    wait_for_text(visit, f"{place} .status", "Writing")
    assert visit(stop) is False
    press(visit, "ladder", "Stop")
    visit.wait_for(
        "return document.querySelector(arguments[0]).textContent === ''", f"{place} .status"
    )
    assert visit(stop) is True


def test_a_loss_is_told_as_a_number_of_choices(visit, living):
    visit = visit(living)
    place = see(visit, "ladder")
    first = next(model for model in models_of(living)["models"] if model["rung"] == 1)
    choices = 2 ** first["bits"]
    number = f"{choices:.1f}" if choices < 10 else f"{choices:.0f}"
    assert (
        f"as hard as guessing one of {number} that are equally likely"
        in (texts(visit, f"{place} .idea")[0])
    )


def test_the_texts_of_the_ladder_are_shown_from_their_beginning(visit, living):
    visit = visit(living)
    place = see(visit, "ladder")
    wait_for_text(visit, f"{place} .status", "Writing")
    visit.wait_for(
        "return document.querySelector(arguments[0]).textContent === ''", f"{place} .status"
    )
    papers = "return [...document.querySelectorAll('.card .paper')].map(e => e.scrollTop)"
    assert visit(papers) == [0] * 6


def test_the_slider_walks_the_ladder(visit, living):
    visit = visit(living, PHONE)
    place = see(visit, "ladder")
    rungs = [model for model in models_of(living)["models"] if model["rung"]]
    for index, model in enumerate(rungs):
        set_value(visit, f"{place} input[type=range]", index + 1)
        assert model["idea"] in texts(visit, f"{place} .idea")[0]
        assert f"{model['bits']:.2f} bits" in texts(visit, f"{place} .idea")[0]
        shown = visit(
            "return [...document.querySelectorAll('.card')].map(e => e.checkVisibility())"
        )
        assert shown == [place == index for place in range(6)]


def test_the_ladder_stops_when_it_is_no_longer_seen(visit, living):
    visit = visit(living)
    see(visit, "ladder")
    visit.wait_for("return document.querySelector('.card .text').textContent.length > 10")
    see(visit, "learning")
    length = "return document.querySelector('.card .text').textContent.length"
    visit.wait_for("return document.querySelector('[data-view=ladder] .status').textContent === ''")
    before = visit(length)
    visit.driver.execute_async_script("setTimeout(arguments[0], 200)")
    assert visit(length) == before < 160


# --- guess ---------------------------------------------------------------------------------------


def guess(visit, character):
    from selenium.webdriver.common.keys import Keys

    (gap,) = elements(visit, ".gap")
    gap.send_keys(Keys.ENTER if character == "\n" else character)


def test_guesses_are_counted_and_models_are_scored_at_the_same_places(visit, living):
    held = models_of(living)["heldOut"]
    visit = visit(living)
    see(visit, "guess")
    count = 12
    assert texts(visit, '[data-view="guess"] .window') == [held["before"][-180:]]
    wrong = next(letter for letter in "qzx" if letter != held["text"][0])
    guess(visit, wrong)
    assert texts(visit, ".letter[aria-disabled=true]") == [wrong]
    for character in held["text"][:count]:
        guess(visit, character)
    wait_for_text(visit, ".result > .note", "12 letters")
    visit.wait_for("return document.querySelectorAll('.player b')[1].textContent !== '–'")
    assert texts(visit, '[data-view="guess"] .window')[0].endswith(held["text"][:count][-8:])
    told = texts(visit, ".player")
    assert re.match(r"Youabout 0\.\d bits 1\.1 guesses", told[0])
    assert "far too few" in texts(visit, ".result > .note")[0]
    by_label = {model["label"]: model for model in models_of(living)["models"]}
    for run in living.runs:
        if run.config.data != living.comparison.data:
            continue
        tokens = torch.from_numpy(
            run.tokenizer.encode(held["before"] + held["text"][:count]).copy()
        )
        bits = compute_token_surprisals(run.load_model(CPU), tokens, count).mean()
        assert by_label[run.config.model]
        (row,) = [each for each in told if re.match(rf"\S {run.config.model}\d", each)]
        assert abs(float(re.search(r"(\d+\.\d\d) bits", row)[1]) - float(bits)) < 0.006


def named(letter):
    """A letter in a sentence of the page."""
    return {" ": "space", "\n": "end of line"}.get(letter, f"“{letter}”")


def test_what_was_given_up_does_not_count(visit, living):
    held = models_of(living)["heldOut"]["text"]
    visit = visit(living)
    see(visit, "guess")
    press(visit, "guess", "Show it")
    (status,) = texts(visit, '[data-view="guess"] .status')
    assert status == f"It was {named(held[0])}. It counts for no one."
    assert texts(visit, ".player .score")[0].startswith("–")
    assert texts(visit, '[data-view="guess"] .window')[0].endswith(held[0])


def wait_for_scores(visit, count):
    """Wait until all players are scored after `count` letters; return what is said of each."""
    wait_for_text(visit, ".result > .note", "letter" if count == 1 else f"{count} letters")
    visit.wait_for(
        "return ![...document.querySelectorAll('.player .score')].some(e => e.textContent === '– ')"
        " && !document.querySelector('.latest .now').textContent.includes('…')"
    )
    return texts(visit, ".player")


def load_again(visit):
    visit.driver.refresh()
    see(visit, "guess")


def stored_games(visit):
    return visit("return {...localStorage}")


def window_of(visit):
    return texts(visit, '[data-view="guess"] .window')[0]


def test_a_game_goes_on_after_a_reload(visit, living):
    held = models_of(living)["heldOut"]["text"]
    visit = visit(living)
    see(visit, "guess")
    assert stored_games(visit) == {}
    wrong = [letter for letter in "qzx" if letter not in held[:7]]
    guess(visit, wrong[0])
    for letter in held[:6]:
        guess(visit, letter)
    guess(visit, wrong[1])
    before = wait_for_scores(visit, 6)
    shown = window_of(visit)
    load_again(visit)
    assert window_of(visit) == shown
    assert texts(visit, ".letter[aria-disabled=true]") == [wrong[1]]
    assert wait_for_scores(visit, 6) == before
    assert "This browser keeps the game." in texts(visit, "[data-view=guess] > .note")[0]
    guess(visit, held[6])
    assert wait_for_scores(visit, 7)[0] != before[0]
    press(visit, "guess", "Next text")
    shown = window_of(visit)
    load_again(visit)
    assert window_of(visit) == shown
    assert visit.said() == []


def test_starting_again_asks_and_forgets_the_game(visit, living):
    held = models_of(living)["heldOut"]["text"]
    visit = visit(living)
    see(visit, "guess")
    guess(visit, held[0])
    wait_for_scores(visit, 1)
    label = "return document.querySelector('.asking').textContent"
    press(visit, "guess", "Start again")
    assert visit(label) == "Really start again?"
    guess(visit, held[1])
    assert visit(label) == "Start again"
    press(visit, "guess", "Start again")
    visit.wait_for(f"{label} === 'Start again'")
    assert len(stored_games(visit)) == 1
    wait_for_scores(visit, 2)
    width = "return document.querySelector('.asking').offsetWidth"
    calm = visit(width)
    press(visit, "guess", "Start again")
    assert visit(width) == calm
    press(visit, "guess", "Really start again?")
    visit.wait_for("return document.querySelector('.player .score').textContent === '– '")
    assert visit(label) == "Start again"
    assert stored_games(visit) == {}
    load_again(visit)
    assert texts(visit, ".player .score")[0] == "– "


DAMAGED_GAMES = (
    "", "{", "null", "3", "[]", "{}",
    {"at": -1}, {"at": 0}, {"at": 1e9}, {"at": 1001.5}, {"at": "1001"}, {"at": None},
    {"ranks": [1, 2]}, {"ranks": [0]}, {"ranks": [1e6]}, {"ranks": ["1"]}, {"ranks": [None]},
    {"ranks": 1}, {"places": [1e9]}, {"places": [-1]}, {"places": []}, {"places": {"length": 1}},
    {"tried": ["<b>"]}, {"tried": [1]}, {"tried": ["z", "z"]}, {"tried": "z"}, {"tried": None},
)  # fmt: skip


def test_a_stored_game_that_does_not_fit_is_ignored(visit, living):
    held = models_of(living)["heldOut"]
    visit = visit(living)
    see(visit, "guess")
    guess(visit, held["text"][0])
    ((key, kept),) = stored_games(visit).items()
    for damage in DAMAGED_GAMES:
        stored = damage if isinstance(damage, str) else json.dumps(json.loads(kept) | damage)
        visit("localStorage.setItem(...arguments)", key, stored)
        load_again(visit)
        assert window_of(visit) == held["before"][-180:], damage
        assert texts(visit, ".player .score")[0] == "– ", damage
        assert not texts(visit, ".failure"), damage
    visit("localStorage.setItem(...arguments)", key, kept)
    load_again(visit)
    assert window_of(visit).endswith(held["text"][0])
    assert visit.said() == []


def test_each_page_keeps_its_own_game(visit, living, living_hostile):
    for count, page in enumerate((living, living_hostile), 1):
        there = visit(page)
        see(there, "guess")
        assert texts(there, ".player .score")[0] == "– "
        guess(there, models_of(page)["heldOut"]["text"][0])
        assert len(stored_games(there)) == count


@pytest.mark.parametrize("refused", ["get localStorage", "setItem"])
def test_a_browser_that_stores_nothing_is_told_of(visit, living, chromium, refused):
    refuse = {
        "get localStorage": "Object.defineProperty(window, 'localStorage', {get() { throw no }})",
        "setItem": "Storage.prototype.setItem = () => { throw no }",
    }[refused]
    source = f"const no = new DOMException('no', 'SecurityError'); {refuse}"
    added = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        visit = visit(living)
        see(visit, "guess")
        guess(visit, models_of(living)["heldOut"]["text"][0])
        wait_for_scores(visit, 1)
        assert "does not keep the game" in texts(visit, "[data-view=guess] > .note")[0]
        assert visit.said() == []
    finally:
        chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_what_the_others_needed_goes_with_the_text(visit, living):
    visit = visit(living)
    see(visit, "guess")
    guess(visit, models_of(living)["heldOut"]["text"][0])
    wait_for_scores(visit, 1)
    assert texts(visit, ".latest .now")[0].startswith("The others had it at guess")
    press(visit, "guess", "Next text")
    assert texts(visit, ".latest .now") == [""]
    visit.driver.execute_async_script("setTimeout(arguments[0], 500)")
    assert texts(visit, ".latest .now") == [""]


def tall_phone(visit):
    size = {"width": PHONE, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    visit.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_a_phone_shows_letter_score_and_keys_at_once_and_nothing_moves(visit, living):
    held = models_of(living)["heldOut"]["text"]
    visit = visit(living, PHONE)
    tall_phone(visit)
    see(visit, "guess")
    visit("document.querySelector('.gap').focus({preventScroll: true})")
    tops = (
        "return ['.gap', '.short', '.keys', '.asking'].map(kind =>"
        " document.querySelector(kind).getBoundingClientRect().top + scrollY)"
    )
    _, *first = visit(tops)
    # The text stands in its frame; what is below it may not move.
    visit("document.querySelector('.window').scrollIntoView()")
    seen = (
        "return ['.gap', '.short', '.keys'].every(kind => { const {top, bottom} ="
        " document.querySelector(kind).getBoundingClientRect();"
        " return 0 <= top && bottom <= innerHeight && bottom - top > 10; })"
    )
    assert visit(seen)
    for count, letter in enumerate(held[:8], 1):
        for wrong in [other for other in "abcdefghijklmnopqrstuvwxyz" if other != letter][:20]:
            guess(visit, wrong)
            assert visit(tops)[1:] == first
        guess(visit, letter)
        assert visit(tops)[1:] == first
        wait_for_scores(visit, count)
        assert visit(tops)[1:] == first
    sizes = "return [...document.querySelectorAll('.letter')].map(letter => letter.offsetHeight)"
    assert min(visit(sizes)) >= 44


def test_the_score_stands_in_a_line_above_the_keys(visit, living):
    held = models_of(living)["heldOut"]["text"]
    visit = visit(living, PHONE)
    see(visit, "guess")
    assert texts(visit, ".short .now") == ["Your score comes here."]
    for letter in held[:4]:
        guess(visit, letter)
    wait_for_scores(visit, 4)
    number = r"(\d+\.\d)"
    said = rf"You 1\.0 · (\w+) {number} · counting {number} guesses on average, 4 letters"
    (line,) = texts(visit, ".short .now")
    label, model, counting = re.fullmatch(said, line).groups()
    best = min(models_of(living)["models"], key=lambda each: (each["tokenizer"], each["bits"]))
    assert label == best["label"]
    told = wait_for_scores(visit, 4)
    assert any(re.search(rf"{label}.* {model} guesses", each) for each in told)
    assert any(re.search(rf"^Counting.* {counting} guesses", each) for each in told)
    guess(visit, held[4])
    wait_for_scores(visit, 5)
    you = rf"You about {number} \({number}–{number}\)"
    said = rf"{you} · {label} {number} · counting {number} bits per letter, 5 letters"
    assert re.fullmatch(said, texts(visit, ".short .now")[0])


def test_your_bar_begins_at_zero_and_has_a_range(visit, living):
    held = models_of(living)["heldOut"]["text"]
    visit = visit(living)
    see(visit, "guess")
    wrong = [letter for letter in "qzx" if letter not in held[:8]]
    guess(visit, wrong[0])
    for letter in held[:3]:
        guess(visit, letter)
    guess(visit, wrong[0])
    guess(visit, wrong[1])
    for letter in held[3:8]:
        guess(visit, letter)
    wait_for_scores(visit, 8)
    (note,) = texts(visit, ".result > .note")
    said = r"Your bits can only be estimated from your guesses: probably between (.\..) and (.\..) "
    low, high = map(float, re.search(said, note).groups())
    assert "The others have no range" in note
    assert "known exactly" in note
    boxes = visit(
        "return [...document.querySelectorAll('.meter')].map(meter => [meter, ...meter.children]"
        ".map(part => part.getBoundingClientRect()).map(box => [box.left, box.right]))"
    )
    assert all(bar[0] == meter[0] for meter, bar, _ in boxes)
    (meter, bar, around), *others = boxes
    assert around[0] < bar[1] < around[1]
    assert all(mark == [0, 0] for *_, mark in others)
    width = meter[1] - meter[0]
    of_range = (around[1] - around[0]) / width
    top = (high - low) / of_range
    assert (around[0] - meter[0]) / width * top == pytest.approx(low, abs=0.15)
    assert (bar[1] - bar[0]) / width * top == pytest.approx((low + high) / 2, abs=0.3)
    assert violations(visit) == {}


def test_rare_keys_stand_behind_one(visit, living_hostile):
    visit = visit(living_hostile, PHONE)
    see(visit, "guess")
    seen = (
        "return [...document.querySelectorAll('.letter')].filter(e => e.checkVisibility("
        "{visibilityProperty: true})).map(e => e.textContent)"
    )
    (door,) = [each for each in visit(seen) if each.endswith("…")]
    letters = visit(seen)
    assert {"a", "!", "␣"} <= set(letters)
    assert "<" not in letters
    height = "return document.querySelector('.keys').offsetHeight"
    before = visit(height)
    visit("document.activeElement.blur()")
    press(visit, "guess", door)
    signs = visit(seen)
    assert "<" in signs
    assert not set(signs) & {"a", ",", "␣", door}
    assert visit(height) == before
    press(visit, "guess", "<")
    (wrong,) = texts(visit, ".letter[aria-disabled=true]")
    assert wrong == "<"
    press(visit, "guess", "Show it")
    assert visit(seen)[-1] == door


# --- surprise ------------------------------------------------------------------------------------


def test_the_bits_are_those_of_the_report(visit, living):
    visit = visit(living)
    place = see(visit, "surprise")
    static = dict(
        visit(
            "return [...document.querySelectorAll('[data-still=surprise] article')].map("
            "  e => ['h3 .sign', '.mean b'].map(each => e.querySelector(each).textContent))"
        )
    )
    visit.wait_for(f"return document.querySelectorAll('{place} .walk [role=gridcell]').length")
    for index, model in enumerate(models_of(living)["models"]):
        if model["tokenizer"]:
            continue
        choose(visit, "surprise", index)
        visit.wait_for(
            "return document.querySelector(arguments[0] + ' .mean b').textContent === arguments[1]",
            place,
            static[model["sign"]],
        )


def test_it_opens_where_the_models_differ_most(visit, living):
    visit = visit(living)
    place = see(visit, "surprise")
    selector = f"{place} [aria-selected]"
    visit.wait_for("return document.querySelectorAll(arguments[0]).length === 2", selector)
    wait_for_text(visit, f"{place} .side:last-child .panel p", "After")
    first, second = (
        [
            float(name.rsplit(", ", 1)[1].removesuffix(" bits"))
            for name in visit(
                "return [...document.querySelectorAll(arguments[0])].map(e => e.ariaLabel)",
                f"{place} .side:nth-child({side}) [role=gridcell]",
            )
        ]
        for side in (1, 2)
    )
    selected = visit(
        "return [...document.querySelectorAll(arguments[0])].findIndex(e => e.ariaSelected)",
        f"{place} .side:last-child [role=gridcell]",
    )
    gains = [before - after for before, after in zip(first, second, strict=True)]
    assert gains[selected] > max(gains) - 0.15  # the names are rounded
    assert gains[selected] > 1


def test_only_what_one_touches_stays_marked_in_another_text(visit, living):
    visit = visit(living)
    place = see(visit, "surprise")
    marked = f"{place} .side:last-child .panel p"
    wait_for_text(visit, marked, "After")
    set_value(visit, f"{place} textarea", "")
    visit.wait_for("return document.querySelector(arguments[0]).textContent === ''", marked)
    set_value(visit, f"{place} textarea", "the quick")
    wait_for_text(visit, marked, "came")
    (first, second) = (
        [float(each.split(", ")[1].split()[0]) for each in visit(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.ariaLabel)",
            f"{place} .side:nth-child({side}) [role=gridcell]",
        )]
        for side in (1, 2)
    )  # fmt: skip
    gains = [before - after for before, after in zip(first, second, strict=True)]
    selected = visit(
        "return [...document.querySelectorAll(arguments[0])].findIndex(e => e.ariaSelected)",
        f"{place} .side:last-child [role=gridcell]",
    )
    assert gains[selected] > max(gains) - 0.15


def test_the_beginning_of_a_text_is_told_as_such(visit, living):
    from selenium.webdriver.common.keys import Keys

    visit = visit(living)
    place = see(visit, "surprise")
    wait_for_text(visit, f"{place} .side:last-child .panel p", "After")
    (first, *_) = elements(visit, f"{place} .side:last-child [role=gridcell]")
    first.click()
    first.send_keys(Keys.HOME)
    wait_for_text(visit, f"{place} .side:last-child .panel p", "At the beginning came")


def test_on_a_phone_the_marked_character_is_in_its_box(visit, living):
    visit = visit(living, PHONE)
    place = see(visit, "surprise")
    wait_for_text(visit, f"{place} .side:last-child .panel p", "After")
    boxes = visit(
        "return [...document.querySelectorAll(arguments[0] + ' .walk')].map(walk =>"
        "  [walk, walk.querySelector('[aria-selected]')].map(e => e.getBoundingClientRect()))",
        place,
    )
    assert len(boxes) == 2
    for walk, marked in boxes:
        assert walk["height"] <= 160
        assert walk["top"] <= marked["top"] < marked["bottom"] <= walk["bottom"]
    assert boxes[1][0]["top"] - boxes[0][0]["top"] < 844


def test_one_walks_over_the_text_with_the_arrow_keys(visit, living):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    visit = visit(living)
    place = see(visit, "surprise")
    selector = f"{place} .side:last-child [role=gridcell]"
    cells = visit.wait_for(
        "const all = [...document.querySelectorAll(arguments[0])]; return all.length ? all : null",
        selector,
    )
    visit.wait_for(
        "return document.querySelectorAll('[role=gridcell][tabindex=\"0\"]').length >= 2"
    )
    cells[2].click()
    first = len(texts(visit, f"{place} .side:last-child [role=row]")[0])
    for key, expected in (
        (Keys.ARROW_RIGHT, 3), (Keys.ARROW_DOWN, 3 + first), (Keys.ARROW_LEFT, 2 + first),
        (Keys.ARROW_UP, 2), (Keys.HOME, 0), (Keys.END, first - 1),
    ):  # fmt: skip
        ActionChains(visit.driver).send_keys(key).perform()
        assert visit("return document.activeElement === arguments[0]", cells[expected])
        said = texts(visit, f"{place} .side:last-child .panel p")[0]
        assert said.startswith("After" if expected else "At the beginning")
    selected = visit("return document.querySelectorAll('.side:last-child [aria-selected]').length")
    assert selected == 1


@pytest.mark.parametrize("higher", [0, 1])
def test_counting_says_what_followed_and_how_good_it_is(visit, living, tmp_path, higher):
    counts = models_of(living)["counts"]
    best = counts["order"] + higher
    path = tmp_path / "page.html"
    text = re.sub(r'"full":\{"order":\d+', f'"full":{{"order":{best}', living.text)
    path.write_text(text, encoding="utf-8", newline="\n")
    visit = visit(replace(living, path=path))
    place = see(visit, "surprise")
    visit.wait_for("return document.querySelectorAll('.orders li').length")
    (shown,) = texts(visit, f"{place} .counting")
    assert f"order {counts['order']}," in shown
    assert f"{counts['bits']:.2f} bits" in shown
    full = f"of order {best}, has {counts['full']['bits']:.2f}"
    assert (full in shown) == bool(higher)
    assert texts(visit, ".orders li")[-1].startswith("Anywhere")


# --- attention and learning ----------------------------------------------------------------------


def test_each_head_is_shown_with_its_role_and_a_model_without_heads_says_so(visit, living):
    visit = visit(living)
    place = see(visit, "attention")
    for index, model in enumerate(models_of(living)["models"]):
        choose(visit, "attention", index)
        roles = [head for layer in model["roles"] for head in layer]
        if not roles:
            visit.wait_for(
                "return document.querySelector(arguments[0]).textContent.includes('has no heads')",
                place,
            )
            continue
        wait = "return document.querySelectorAll('.attention-head').length === arguments[0]"
        visit.wait_for(wait, len(roles))
        visit.wait_for(
            "return !document.querySelector(arguments[0]).textContent.includes('has no heads')",
            place,
        )
        shown = texts(visit, f"{place} .attention-head small")
        assert shown == [describe_role(each) for each in roles]


def describe_role(head):
    if not head["role"]:
        return "no clear role"
    how = (
        "mostly" if head["score"] >= 0.5 else "often" if head["score"] >= 0.25 else "a little more"
    )
    return f"on average {how} at {head['role']} ({head['score']:.2f})"


def test_it_says_what_comes_after_the_marked_character_and_buttons_walk_on(visit, living):
    text = models_of(living)["text"]
    visit = visit(living, PHONE)
    place = see(visit, "attention")
    at = len(text) // 3
    for button, step in (("›", 1), ("‹", 0), ("‹", -1)):
        wait_for_text(visit, f"{place} .place", "to guess the next one")
        press(visit, "attention", button)
        shown = [{"\n": "⏎", " ": "␣"}.get(each, each) for each in text[at + step : at + step + 2]]
        visit.wait_for(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent).join()"
            " === arguments[1]",
            f"{place} .place .piece",
            ",".join(shown),
        )


def test_an_empty_text_leaves_the_walk_at_its_beginning(visit, living):
    visit = visit(living)
    place = see(visit, "attention")
    visit.wait_for("return document.querySelectorAll('.attention-head').length")
    set_value(visit, '[data-view="surprise"] textarea', "")
    visit.wait_for("return !document.querySelector(arguments[0]).checkVisibility()", ".place")
    press(visit, "attention", "›")
    press(visit, "attention", "‹")
    set_value(visit, '[data-view="surprise"] textarea', "the fox")
    visit.wait_for("return document.querySelector(arguments[0]).checkVisibility()", ".place")
    wait_for_text(visit, f"{place} .place", "The marked t is the last character that it has read")


def test_the_slider_walks_through_training(visit, living):
    (model,) = [each for each in models_of(living)["models"] if each["sign"] == "6"]
    visit = visit(living)
    place = see(visit, "learning")
    choose(visit, "learning", 5)
    assert len(model["samples"]) > 1
    for index, sample in enumerate(model["samples"]):
        set_value(visit, f"{place} input[type=range]", index + 1)
        assert texts(visit, f"{place} .paper .text") == [pictured(sample["text"].strip("\n"))]
        assert f"after {sample['iteration']:,} steps" in texts(visit, f"{place} .told")[0]


# --- layout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, PHONE, DESKTOP])
def test_nothing_moves_while_text_is_written_or_the_slider_is(visit, living, width):
    visit = visit(living, width)
    see_all(visit)
    visit.wait_for("return document.querySelectorAll('.orders li').length")
    visit.wait_for("return document.querySelectorAll('.attention-head').length")
    place = see(visit, "ladder")
    height = "return document.documentElement.scrollHeight"
    heights = {visit(height)}
    visit.wait_for("return document.querySelector('.card .text').textContent.length > 160")
    heights.add(visit(height))
    press(visit, "write", "Write")
    wait_for_text(visit, '[data-view="write"] .status', "seconds")
    heights.add(visit(height))
    for step in range(1, 7):
        set_value(visit, f"{place} input[type=range]", step)
        heights.add(visit(height))
    assert len(heights) == 1


def test_a_printed_page_has_the_texts_and_no_controls(visit, living):
    visit = visit(living, motion="reduce")
    see_all(visit)
    see(visit, "ladder")
    visit.wait_for("return document.querySelectorAll('.card .paper:not(.blank)').length === 6")
    visit.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = visit(
        "return [...document.querySelectorAll('.view input, .view button, .view select')].filter("
        "  e => e.checkVisibility() && !e.closest('.bars, .choices')).map(e => e.outerHTML)"
    )
    cut = visit(
        "return [...document.querySelectorAll('.card .paper')].filter("
        "  e => e.scrollHeight > e.clientHeight + 1).length"
    )
    visit.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == []
    assert cut == 0
