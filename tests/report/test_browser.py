"""The report in a real Chromium: silent, accessible, no wider than the window, never fooled."""

import pytest
from browser import DESKTOP, PHONE, SCHEMES, Visit, needs_chromium, violations
from report_pages import HOSTILE, MODELS, as_shown

from drakegpt.report.page import LossScale
from drakegpt.wording import format_command

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(params=["ordinary", "hostile", "live"])
def page(request):
    return request.getfixturevalue(request.param)


def test_the_browser_would_tell(chromium, tmp_path):
    """What the other tests rely on: that messages, requests and violations are seen at all."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<p style='color:#bbb'>pale<img src='http://127.0.0.1:9/x.png'><script>x()</script>"
    )
    visit = Visit(chromium, bad.as_uri())
    assert any("x is not defined" in message for message in visit.said())
    assert "http://127.0.0.1:9/x.png" in visit.asked_for()
    assert {"color-contrast", "image-alt", "html-has-lang"} <= set(violations(visit))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_says_nothing_and_asks_for_nothing(visit, page, scheme):
    visit = visit(page, scheme=scheme)
    assert visit.said() == []
    fetched = [address for address in visit.asked_for() if not address.startswith("blob:")]
    assert fetched == [page.path.as_uri()]


def test_the_script_of_a_live_page_runs_and_asks_its_engine(visit, live):
    visit = visit(live)
    answer = visit.driver.execute_async_script(
        "const done = arguments[0]; let tries = 0; const look = () =>"
        " document.body.dataset.answer || ++tries > 250 ? done(document.body.dataset.answer)"
        " : setTimeout(look, 20); look()"
    )
    assert answer == MODELS["text"] + "&lt;</style>true&amp;<b>"
    assert visit.said() == []


@pytest.mark.parametrize(
    ("does", "directive"),
    [
        ("document.body.setAttribute('style', 'color: #ff0000')", "style-src"),
        ("document.head.append(Object.assign(document.createElement('style'),"
         " {textContent: 'body { color: #ff0000 }'}))", "style-src"),
        ("document.body.append(Object.assign(document.createElement('script'),"
         " {textContent: 'document.body.style.color = `#ff0000`'}))", "script-src"),
        ("document.body.append(Object.assign(document.createElement('img'),"
         " {src: 'file:///x.png'}))", "img-src"),
    ],
)  # fmt: skip
def test_the_browser_lets_nothing_else_be_applied_run_or_fetched(visit, live, does, directive):
    visit = visit(live)
    visit(does)
    assert visit("return getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    assert any(directive in message for message in visit.said())


def test_a_part_that_is_hidden_is_not_seen(visit, live):
    """A view before there is a script for it, and a still after."""
    visit = visit(live)
    heights = (
        "return ['view', 'still'].map(kind =>"
        " document.querySelector(`#write .${kind}`).getBoundingClientRect().height)"
    )
    view, still = visit(heights)
    assert view == 0 < still
    visit("document.querySelector('#write .still').hidden = true")
    assert visit(heights) == [0, 0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ladder_is_drawn_to_the_scale_of_its_losses(visit, ordinary, scheme):
    visit = visit(ordinary, scheme=scheme)
    drawn = visit(
        "const centre = dot => { const box = dot.getBoundingClientRect();"
        "  return box.left + box.width / 2 };"
        "return [...document.querySelectorAll('.track')].map(track => {"
        "  const [hollow, filled] = track.querySelectorAll('circle');"
        "  const rail = track.querySelector('.rail').getBoundingClientRect();"
        "  const reach = track.querySelector('.reach').getBoundingClientRect();"
        "  const look = getComputedStyle;"
        "  return {train: (centre(hollow) - rail.left) / rail.width,"
        "    val: (centre(filled) - rail.left) / rail.width,"
        "    reach: [reach.left, reach.right], ends: [centre(hollow), centre(filled)],"
        "    own: look(filled).fill, edge: look(hollow).stroke, inner: look(hollow).fill,"
        "    paper: look(document.body).backgroundColor,"
        "    sign: look(track.parentNode.querySelector('.sign')).backgroundColor} })"
    )
    rows = ordinary.comparison.rows
    assert len(drawn) == len(rows) == 6
    scale = LossScale.of(ordinary.comparison)
    for row, track in zip(rows, drawn, strict=True):
        assert 100 * track["train"] == pytest.approx(float(scale.place(row.train_loss)), abs=0.5)
        assert 100 * track["val"] == pytest.approx(float(scale.place(row.val_loss)), abs=0.5)
        assert sorted(track["ends"]) == pytest.approx(track["reach"], abs=2)
        assert track["own"] == track["edge"] == track["sign"]
        assert track["inner"] == track["paper"] != track["own"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_it_breaks_no_rule_of_accessibility(visit, page, width, scheme):
    visit = visit(page, width, scheme)
    visit("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert violations(visit) == {}


@pytest.mark.parametrize("width", [320, PHONE, 768, DESKTOP])
def test_the_page_never_scrolls_sideways(visit, page, width):
    visit = visit(page, width)
    visit("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert visit("return innerWidth") == width
    assert visit("return document.documentElement.scrollWidth") <= width
    outside = visit(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg') &&"
        " e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_figures_are_drawn_in_the_colours_of_the_page(visit, ordinary, scheme):
    visit = visit(ordinary, scheme=scheme)
    figures = visit(
        "return [...document.querySelectorAll('figure svg')].map(svg => {"
        " const box = svg.getBoundingClientRect();"
        " const drawn = [...svg.querySelectorAll('path, use, text')];"
        " const styles = drawn.map(e => getComputedStyle(e));"
        " return {width: box.width, height: box.height, texts: svg.querySelectorAll('text').length,"
        "  strokes: styles.map(s => s.stroke), fonts: styles.map(s => s.fontFamily),"
        "  fills: [...svg.querySelectorAll('text')].map(e => getComputedStyle(e).fill)} })"
    )
    resolved = visit(
        "const styles = getComputedStyle(document.documentElement);"
        "const probe = document.body.appendChild(document.createElement('i'));"
        "return ['--ink', '--muted', '--rung-1', '--rung-6'].map(name => {"
        " probe.style.color = styles.getPropertyValue(name);"
        " return getComputedStyle(probe).color })"
    )
    assert len(figures) == 3
    for figure in figures:
        assert figure["width"] > 300
        assert figure["height"] > 200
        assert figure["texts"] > 10
        assert {resolved[1], resolved[2], resolved[3]} <= {*figure["strokes"], *figure["fills"]}
        assert "rgb(0, 0, 0)" not in {*figure["strokes"], *figure["fills"]}
        assert len(set(figure["fonts"])) == 1


def test_figures_are_told_in_words(visit, ordinary):
    told = visit(ordinary)(
        "return [...document.querySelectorAll('figure svg')].map(svg => [svg.getAttribute('role'),"
        " ...['aria-labelledby', 'aria-describedby'].map("
        "  name => document.getElementById(svg.getAttribute(name)).textContent)])"
    )
    assert [(role, title) for role, title, _ in told] == [
        ("img", "Validation loss while training"),
        ("img", "Training loss while training"),
        ("img", "Bits per character over time"),
    ]
    rows = ordinary.comparison.rows
    for row in rows:
        last = row.evaluations[-1]
        assert f"{row.label} goes from" in told[0][2]
        assert f"to {last['val_loss']:.2f} at {last['iteration']}" in told[0][2]
        assert f"to {last['train_loss']:.2f} at {last['iteration']}" in told[1][2]
    assert "the mean of 3 seeds" in told[0][2]


def test_the_dark_is_dark_and_the_light_is_light(visit, ordinary):
    def brightness(scheme):
        colour = visit(ordinary, scheme=scheme)(
            "return getComputedStyle(document.body).backgroundColor"
        )
        return sum(map(int, colour[4:-1].split(",")))

    assert brightness("dark") < 150
    assert brightness("light") > 650


def test_paper_is_white_even_in_the_dark(visit, ordinary):
    visit = visit(ordinary, scheme="dark")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    printed = {"media": "print", "features": dark}
    visit.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", printed)
    ground, ink = visit(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    assert ground == "rgb(255, 255, 255)"
    assert sum(map(int, ink[4:-1].split(","))) < 150
    visit.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_the_keyboard_reaches_all_that_scrolls_or_leads_somewhere(visit, ordinary):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    visit = visit(ordinary, PHONE)
    visit("document.querySelectorAll('details').forEach(details => details.open = true)")
    scrolling = visit(
        "return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&"
        " e.scrollWidth > e.clientWidth &&"
        " ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))"
    )
    assert len(scrolling) >= 2
    wanted = [*scrolling, *visit("return [...document.querySelectorAll('a, summary')]")]
    reached = []
    for _ in range(60):
        ActionChains(visit.driver).send_keys(Keys.TAB).perform()
        element = visit.driver.switch_to.active_element
        if element.tag_name == "body" or element in reached:
            break
        reached.append(element)
        outline = visit(
            "const s = getComputedStyle(arguments[0]); return [s.outlineStyle, s.outlineWidth]",
            element,
        )
        assert outline == ["solid", "3px"], element.text
        box = visit(
            "const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width]",
            element,
        )
        assert box[0] >= 0
        assert box[1] > -1000
        assert box[2] > 0
    assert reached[0].get_attribute("textContent") == "Skip to the models"
    assert set(wanted) <= set(reached)
    visit("arguments[0].focus()", reached[0])
    ActionChains(visit.driver).send_keys(Keys.ENTER).perform()
    assert visit("return document.activeElement.id") == "main"


def test_a_scrollable_region_scrolls_by_key(visit, ordinary):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    visit = visit(ordinary, PHONE)
    region = visit.driver.find_element(By.CSS_SELECTOR, "#summary .scroll")
    region.send_keys(Keys.ARROW_RIGHT * 5)
    moved = visit.driver.execute_async_script(
        "const [region, done] = arguments; let tries = 0; const look = () =>"
        " region.scrollLeft || ++tries > 100 ? done(region.scrollLeft) : setTimeout(look, 20);"
        " look()",
        region,
    )
    assert moved > 0
    first = visit(
        "return arguments[0].querySelector('tbody th').getBoundingClientRect().left", region
    )
    assert first < 60  # the models' signs stay in sight


def test_what_matters_of_the_tables_is_in_sight(visit, ordinary):
    desk = visit(ordinary, DESKTOP)
    desk("document.querySelectorAll('details').forEach(details => details.open = true)")
    cut = (
        "return [...document.querySelectorAll(arguments[0])].map("
        " e => e.scrollWidth - e.clientWidth)"
    )
    assert desk(cut, "#summary .scroll, #baselines .scroll") == [0, 0, 0]
    phone = visit(ordinary, PHONE)
    assert phone(cut, "#baselines .scroll") == [0]
    titles = phone(
        "const end = document.querySelector('#summary .scroll').getBoundingClientRect().right;"
        "return [...document.querySelectorAll('#summary .scroll thead th')].filter("
        " e => e.getBoundingClientRect().right <= end).map(e => e.textContent)"
    )
    assert titles[:3] == ["model", "bits/char", "gain (nats)"]


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_rule_of_a_table_is_at_one_height(visit, ordinary, width):
    """Rows are whole pixels high, as a cell that stays in sight is rounded by itself."""
    heights = visit(ordinary, width)(
        "return [...document.querySelectorAll('table tr')].filter(e => e.checkVisibility())"
        " .map(row => row.getBoundingClientRect().height)"
    )
    assert len(heights) > 10
    assert [height for height in heights if abs(height - round(height)) > 0.01] == []
    rules = visit(ordinary, width)(
        "return [...document.querySelectorAll('thead th')].map(e => getComputedStyle(e)"
        " .borderBottomWidth)"
    )
    assert set(rules) == {"0px"}  # the cells below have it, which cover what is above


@pytest.mark.parametrize("width", [PHONE, 768])
def test_what_is_touched_is_large_enough_for_a_finger(visit, ordinary, width):
    visit = visit(ordinary, width)
    visit.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    sizes = visit(
        "return [...document.querySelectorAll('nav a, summary')].map(e => {"
        " const box = e.getBoundingClientRect(); return [box.width, box.height] })"
    )
    visit.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert len(sizes) > 8
    assert all(width >= 44 and height >= 44 for width, height in sizes), sizes


def test_labels_of_figures_lie_on_no_curve(visit, ordinary):
    for width in (PHONE, DESKTOP):
        places = visit(ordinary, width)(
            "const box = e => e.getBoundingClientRect();"
            "return [...document.querySelectorAll('figure svg')].flatMap(svg => {"
            "  const dashed = [...svg.querySelectorAll('[stroke-dasharray]')];"
            "  const end = Math.max(...dashed.map(e => box(e).right));"
            "  return [...svg.querySelectorAll('text')].filter(e => /gram/.test(e.textContent))"
            "   .map(e => box(e).left - end) })"
        )
        assert len(places) == len(ordinary.comparison.drawn_baselines)
        assert min(places) > 0


# --- hostile text -------------------------------------------------------------------------------


def test_no_hostile_text_becomes_anything_else(visit, hostile):
    visit = visit(hostile)
    assert visit("return window.x") is None
    kinds = set(visit("return [...document.querySelectorAll('*')].map(e => e.localName)"))
    assert not kinds & {"script", "img", "object", "iframe", "base"}
    assert visit("return document.querySelectorAll('style').length") == 1
    attributes = visit(
        "return [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
    )
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "{{7}}")]
    assert visit("return document.title").startswith("The ladder on “a<b onclick=x>&amp;{{7}}")


def test_hostile_text_is_read_as_it_was_written(visit, hostile):
    visit = visit(hostile)

    def texts(selector):
        return visit(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
        )

    verse = as_shown("\n".join(HOSTILE))
    assert texts(".verse.plain") == [verse]
    assert [text.replace("⏎\n", "\n") for text in texts("article .verse")] == [verse] * 2
    written = [as_shown(text) for text in hostile.samples.texts.values()]
    assert texts(".sample") == written
    name = hostile.comparison.data
    assert texts("h1 bdi") == [name]
    settings = ["iters=4", "eval_interval=2", "eval_iters=1"]  # those of the runs
    more = format_command("compare", train=True, seeds=3, data=name, set_=settings)
    assert texts(".findings code") == [more]
    runs = [run for row in hostile.comparison.rows for run in row.runs]
    assert texts(".run > bdi:first-child") == runs


def test_right_to_left_text_leaves_its_neighbours_where_they_are(visit, hostile):
    """What follows it in a line follows it on the screen, and what is below starts at the left."""
    visit = visit(hostile)
    after = visit(
        "const boxes = node => { const range = document.createRange();"
        "  range.selectNodeContents(node); return [...range.getClientRects()] };"
        "const places = '.lead bdi, .findings bdi, #write p bdi';"
        "return [...document.querySelectorAll(places)].map(bdi => {"
        "  const own = boxes(bdi).at(-1);"
        "  const next = boxes(bdi.nextSibling || bdi.parentNode.nextSibling)[0];"
        "  return [own.right, own.bottom, next.left, next.top] })"
    )
    assert len(after) == 4
    for right, bottom, left, top in after:
        assert left >= right - 1 or top >= bottom - 6
    lefts = visit(
        "return [...document.querySelectorAll('main > section')].map("
        " section => section.getBoundingClientRect().left)"
    )
    assert len(set(lefts)) == 1
    directions = visit(
        "return [...document.querySelectorAll('h1, h2, h3, p:not(.text), td')].map("
        " e => getComputedStyle(e).direction)"
    )
    assert set(directions) == {"ltr"}
    tops = visit(
        "return [...document.querySelectorAll('#surprise article')].map(article =>"
        " [...article.children].map(child => child.getBoundingClientRect().top))"
    )
    assert all(own == sorted(own) and len(own) == 4 for own in tops)
