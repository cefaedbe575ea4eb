"""Commands that a shell takes as they are meant, and counts with the right noun."""

import ast
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import drakegpt
from drakegpt.config import resolve
from drakegpt.config.files import to_command
from drakegpt.wording import format_command, pluralize, quote

ODD = [
    "plain",
    "two words",
    "it's",
    'a "b"',
    "$HOME",
    "`id`",
    "a;b",
    "-dash",
    "--data",
    "*",
    "~",
    "",
]


@pytest.mark.parametrize("name", ODD)
def test_a_shell_gives_the_words_back(name):
    line = format_command("generate", name, data=name, best=True, scaled=False, device=None)
    words = shlex.split(line)
    if name.startswith("-"):
        assert words == ["drakegpt", "generate", f"--data={name}", "--best", "--", name]
    else:
        assert words == ["drakegpt", "generate", name, "--data", name, "--best"]
    if os.name == "posix":
        done = subprocess.run(
            ["sh", "-c", f"for word in {quote(name)}; do printf %s \"$word\"; done"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == name


@pytest.mark.parametrize("name", [name for name in ODD if name])
def test_the_command_of_a_run_gives_its_settings_back(name):
    config = resolve("TransformerLM", "default", name, {"init_from": name, "tie_embeddings": False})
    words = shlex.split(to_command(config))
    dashed = name.startswith("-")
    assert ([f"--data={name}"] if dashed else ["--data", name])[-1] in words
    assert ([f"--init-from={name}"] if dashed else ["--init-from", name])[-1] in words


def test_lists_are_repeated_options():
    line = format_command("compare", data="a", set_=["iters=2", "init_from=a b"])
    assert line == "drakegpt compare --data a --set iters=2 --set 'init_from=a b'"


def test_windows_quotes(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    for word in ("plain", "two words", 'a "b"', "C:\\a b\\", "a&b", "", "it's"):
        line = quote(word)
        # How Windows' own rules read a quoted word back.
        assert line == word or line.startswith('"')
        inside = line.removeprefix('"').removesuffix('"') if line != word else word
        assert inside.replace('\\"', '"').replace("\\\\", "\\") == word


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 runs"),
        (1, "1 run"),
        (2, "2 runs"),
        (1234, "1,234 runs"),
        (1.0, "1 run"),
        (0.5, "0.5 runs"),
    ],
)
def test_counts(number, shown):
    assert pluralize(number, "run") == shown


def test_irregular_plurals():
    assert pluralize(2, "loss", "losses") == "2 losses"


PUT_TOGETHER = re.compile(r"drakegpt (data|runs|eval|compare|generate|export)[^`]*\{\}|resume \{\}")
SOURCES = sorted(Path(drakegpt.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_command_is_put_together_from_names_elsewhere(path):
    """A command with a value in it is made by `format_command`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            assert not PUT_TOGETHER.search(literal := "".join(parts)), literal


def test_only_the_console_makes_texts_for_a_screen():
    made = [
        path.stem
        for path in SOURCES
        if "rich.text" in (text := path.read_text(encoding="utf-8"))
        and not re.search(r"TYPE_CHECKING:\n    from rich\.text", text)
    ]
    assert made == ["console"]
