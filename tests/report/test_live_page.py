"""What the page lets a browser apply and run, and where scripts find their place in it."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import pytest
from report_pages import ENGINE, MODELS, SCRIPT, Tree

from drakegpt.report.live import Live
from drakegpt.report.page import (
    NO_LICENCE,
    SECTIONS,
    content_security_policy,
    describe_dates,
    render,
)

VIEWS = ("ladder", "write", "guess", "surprise", "attention", "learning")


def policy_of(tree):
    """The sources that the page's security policy allows, by directive."""
    (policy,) = [g["content"] for g, _ in tree.all("meta") if "http-equiv" in g]
    rules = [rule.split() for rule in policy.split("; ")]
    assert len(rules) == len({name for name, *_ in rules})
    return {name: sources for name, *sources in rules}


def sha256_of(text):
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def element_of(tag, text):
    """What stands between the tags of the one such element without an id, as a browser reads it."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
    return content


@pytest.mark.parametrize("kind", ["ordinary", "hostile"])
def test_a_static_page_allows_its_style_and_nothing_else(kind, request):
    page = request.getfixturevalue(kind)
    tree = Tree(page.text)
    assert policy_of(tree) == {
        "default-src": ["'none'"],
        "style-src": [sha256_of(element_of("style", page.text))],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    assert not [tag for tag, given, _ in tree.elements if "style" in given]
    # Text of the hostile page may say it, but has its quotation marks escaped.
    assert ' style="' not in page.text


def test_the_policy_of_a_script_lets_it_run_alone_and_start_workers_of_blobs():
    policy = content_security_policy("a{}", "let x = 1 < 2")
    assert f"script-src {sha256_of('let x = 1 < 2')} blob:;" in policy
    assert "worker-src blob:;" in policy
    assert "unsafe" not in policy
    assert "script" not in content_security_policy("a{}")


def test_a_live_page_holds_its_script_engine_and_models_unchanged(live):
    tree = Tree(live.text)
    script = element_of("script", live.text)
    assert script == SCRIPT
    assert policy_of(tree)["script-src"] == [sha256_of(script), "blob:"]
    assert policy_of(tree)["worker-src"] == ["blob:"]
    (engine,) = tree.all("script", id="engine")
    assert engine == ({"type": "text/plain", "id": "engine"}, ENGINE)
    ((given, models),) = tree.all("script", id="models")
    assert given["type"] == "application/json"
    assert json.loads(models) == MODELS
    assert "<" not in models
    order = [tag for tag, _, _ in tree.elements if tag in ("style", "script", "body")]
    assert order == ["style", "script", "body", "script", "script"]


def test_a_live_page_has_a_place_for_each_view_and_what_it_replaces(live):
    tree = Tree(live.text)
    views = [given for given, _ in tree.all("div", class_="view")]
    stills = [given["data-still"] for given, _ in tree.all("div", class_="still")]
    assert [given["data-view"] for given in views] == list(VIEWS) == stills
    assert all("hidden" in given for given in views)
    shown = [name for name in tree.ids() if name in SECTIONS]
    assert shown == [name for name in SECTIONS if name != "originality"]
    for name in VIEWS:
        section = rf'<section id="{name}" .*\n<h2.*\n<p>Look for [^.]*\.</p>\n<div class="view" '
        beside = rf'data-view="{name}" hidden></div>\s*<div class="still" data-still="{name}">'
        assert re.search(section + beside, live.text)
        assert tree.all("a", href=f"#{name}")


def test_a_static_page_has_no_place_for_a_script(ordinary):
    tree = Tree(ordinary.text)
    assert not tree.all("div", class_="view")
    assert not {"guess", "attention", "engine", "models"} & set(tree.ids())
    assert "data-view" not in ordinary.text


def test_a_page_says_what_it_is(live, ordinary):
    tree = Tree(live.text)
    assert tree.all("title")[0][1] == "Six <b> & more – drakegpt"
    assert tree.all("h1")[0][1] == "Six <b> & more"
    ((_, told),) = tree.all("footer", id="about")
    assert "CC0 <i>" in told
    assert "the models are in it" in told
    ((_, told),) = Tree(ordinary.text).all("footer", id="about")
    assert NO_LICENCE in told
    assert "the models are in it" not in told
    for row in (*ordinary.comparison.rows, *ordinary.comparison.others):
        assert f"{row.label}: {row.parameters:,} parameters" in told
    assert re.search(r"Trained\s*20\d\d-\d\d-\d\d\s", told)


def test_the_dates_of_runs_are_the_first_and_the_last_day():
    runs = [
        SimpleNamespace(info={"created_at": f"2026-{day}T23:31:17.674091+00:00"})
        for day in ("11-28", "02-03", "11-28")
    ]
    assert describe_dates(runs[:1]) == "2026-11-28"
    assert describe_dates(runs) == "2026-02-03 to 2026-11-28"


@pytest.mark.parametrize("text", ["a</script>", "</SCRIPT ", "x = '<!--'", "a\r\nb", "\0"])
@pytest.mark.parametrize("part", ["script", "engine"])
def test_a_script_that_a_browser_would_read_otherwise_is_refused(part, text):
    with pytest.raises(ValueError, match=f"no {part} of a page may contain"):
        render(None, None, (), None, live=replace(Live("", "", "", "", 2), **{part: text}))
