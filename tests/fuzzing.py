"""What the tests of random cases share: how many there are, and what they are made of.

Each run tries a sample; `pytest -m exhaustive` tries some 10,000 cases. The seed of either stands
below its failures: `--hypothesis-seed`.
"""

import json

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

exhaustive = False  # set by conftest where the marker is asked for


def examples(number, of_all=None):
    """Have a test try so many cases: `of_all` of them where it is one of `pytest -m exhaustive`."""

    def decorate(test):
        test = settings(
            max_examples=(of_all or number) if exhaustive else number,
            deadline=None,
            derandomize=False,
            print_blob=True,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )(test)
        return pytest.mark.timeout(3600)(pytest.mark.exhaustive(test)) if exhaustive else test

    return decorate


# --- What a file may come to hold -------------------------------------------------------------

places = st.integers(0, 2**12)
some_bytes = st.binary(min_size=1, max_size=12)
edits = st.one_of(
    st.tuples(st.just("cut"), places),
    st.tuples(st.just("flip"), places, st.integers(0, 7)),
    st.tuples(st.just("insert"), places, some_bytes),
    st.tuples(st.just("overwrite"), places, some_bytes),
    st.tuples(st.just("replace"), st.binary(max_size=200)),
)
damages = st.lists(edits, min_size=1, max_size=3)


def damaged(content, damage, step=1):
    """A file's bytes after some edits, whose places are counted in steps of some bytes."""
    for kind, *how in damage:
        if kind == "replace":
            content = how[0]
            continue
        place = step * how[0] % (len(content) + 1)
        if kind == "cut":
            content = content[:place]
        elif kind == "insert":
            content = content[:place] + how[1] + content[place:]
        elif kind == "overwrite":
            content = content[:place] + how[1] + content[place + len(how[1]) :]
        elif place < len(content):
            content = content[:place] + bytes([content[place] ^ 1 << how[1]]) + content[place + 1 :]
    return content


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
json_texts = json_values.map(json.dumps) | st.text(max_size=60)
# Nested deeper than Python's parsers go, in JSON and in TOML, and a number longer than they take.
HUGE = {
    "deep": "[" * 100_000,
    "long": "9" * 5_000,
    "deep TOML": "a = " + "[" * 100_000,
    "long TOML": "a = " + "9" * 5_000,
}


def replaced_inside(value, path, new):
    """The JSON `value` with what `path` leads to, a number for each level, replaced by `new`."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[path[0] % len(keys)]
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[key] = replaced_inside(value[key], path[1:], new)
    return changed


paths_inside = st.lists(st.integers(0, 30), max_size=3)


def contents(folder):
    """All files in a folder, but for locks, with what they hold."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
