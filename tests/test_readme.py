"""Commands, figures and links of the README and its pages are true.

Figures that training or counting gives are in `.readme/results.json`, where other tests take them
from too. `.readme/figures.json` says where every other figure in a sentence comes from: "= " and a
calculation with figures of the page's tables, or a source.
"""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.core import TyperCommand

from drakegpt.config import LADDER, resolve
from drakegpt.models import ladder
from drakegpt.models.registry import MODELS
from drakegpt.models.size import count_total_parameters

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = {path.name: path for path in (README, *sorted((ROOT / ".readme").glob("*.md")))}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
TEXT = TEXTS["README.md"]
LINKING = [*PAGES.values(), *sorted((ROOT / ".github").rglob("*.md"))]
RESULTS = json.loads((ROOT / ".readme" / "results.json").read_text(encoding="utf-8"))
SOURCES = json.loads((ROOT / ".readme" / "figures.json").read_text(encoding="utf-8"))
MAIN, TESTS = re.findall(r"```sh\n(.*?)\n```", TEXT, re.S)

SHOWN = re.findall(r"^\$ (.*?)(?:\s+#.*)?$", "\n".join(TEXTS.values()), re.M)
COMMANDS = sorted({line.partition("drakegpt ")[2] for line in SHOWN if "drakegpt " in line})
OTHER_PROGRAMS = {"python3", ".venv/bin/pip", ".venv/bin/python"}
FIGURE = r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d+\.\d+)(?!\w|[.,]\d)"


def prose(page):
    """The sentences of a page and the output in it: no tables, commands, code or targets of links.

    Numbers of papers are no figures.
    """
    text = re.sub(r"^```sh\n[^`]*```$|^(?:\||\$ ).*$", "", page, flags=re.M)
    return re.sub(r"`[^`\n]+`|\]\([^)]*\)|arXiv \d+\.\d+", "", text)


def rows(page):
    """The lines of a page's tables."""
    return re.findall(r"^\|.*$", page, re.M)


def heading_ids(page):
    """What a link to a heading of the page may end with, as GitHub names headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# --- Commands -----------------------------------------------------------------------------------


def test_each_command_starts_from_python_alone():
    for command in (MAIN, TESTS):
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the command is for a POSIX shell")
def test_the_main_command_works_with_less_time(tmp_path, home):
    """All of it but the installation, which is what put the program here."""
    (step,) = [step for step in MAIN.split(" && ") if step.startswith(".venv/bin/drakegpt")]
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    command = step.replace("--minutes 2", "--minutes 0.1")
    assert command != step
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, timeout=300, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 500
    assert "bits per character" in done.stderr
    assert len(list((home / "runs").iterdir())) == 1


def test_commands_shown_are_those_of_drakegpt():
    others = {line.split()[0] for line in SHOWN if "drakegpt " not in line}
    assert others == OTHER_PROGRAMS
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_shown_is_understood(drakegpt, monkeypatch, line):
    """Its commands, options and their values are accepted; only what it would do is left out."""
    taken = []
    monkeypatch.setattr(TyperCommand, "invoke", lambda self, ctx: taken.append(ctx.info_name))
    words = shlex.split(line.partition(" > ")[0])
    got = drakegpt(*words)
    assert got.code == 0, got.err
    assert taken or "--help" in words or words == ["runs"]


def test_every_setting_shown_exists(drakegpt):
    known = drakegpt("train", "TransformerLM", "--print-config").out
    names = set(re.findall(r"^(\w+) =", known, re.M))
    shown = re.findall(r"--(?:set|param) (\w+)=", "\n".join(COMMANDS))
    assert shown
    assert set(shown) <= names


@pytest.mark.parametrize("name", [name for name in PAGES if name != "README.md"])
def test_a_page_opens_with_a_command(name):
    assert re.match(r"# .+\n\n```console\n\$ ", TEXTS[name])


@pytest.mark.slow
def test_the_notebook_example_works(capsys):
    """As it stands there, but for the number of iterations; an expression shows its value."""
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert example.count("iters=2000") == 2
    *lines, last = example.replace("iters=2000", "iters=20, eval_iters=2").strip().splitlines()
    given = {}
    exec("\n".join(lines), given)
    comparison = eval(last, given)
    assert [row.model for row in comparison.rows] == [*LADDER]
    shown = capsys.readouterr()
    assert "validation" in shown.out.partition("late night")[0]
    assert shown.err == ""


# --- Figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_in_a_sentence_has_a_source(name):
    """A decimal or a number of four digits and more stands in a table, or its source is told."""
    figures = set(re.findall(FIGURE, prose(TEXTS[name])))
    in_tables = set(re.findall(FIGURE, "\n".join(rows(TEXTS[name]))))
    in_results = {
        figure
        for result in RESULTS.values()
        if result["command"] in TEXTS[name]
        for row in result["rows"].values()
        for figure in row.values()
    }
    assert figures - in_tables - in_results <= set(SOURCES.get(name, {}))
    assert set(SOURCES.get(name, {})) <= figures, "a source of a figure that is not on the page"


def calculations():
    for page, sources in SOURCES.items():
        for figure, source in sources.items():
            for line in [source] if isinstance(source, str) else source:
                if line.startswith("= "):
                    yield page, figure, line.removeprefix("= ")


@pytest.mark.parametrize(("page", "figure", "calculation"), [*calculations()])
def test_a_figure_follows_from_the_tables(page, figure, calculation):
    for operand in re.findall(FIGURE, calculation):
        in_sentence = isinstance(SOURCES[page].get(operand), str)
        assert in_sentence or re.search(rf"(?<![\d.]){re.escape(operand)}(?!\d)", TEXTS[page])
    assert re.fullmatch(r"(?:[\d.,+\-*/() ]|sqrt|log|exp)+", calculation)
    functions = {"sqrt": math.sqrt, "log": math.log, "exp": math.exp}
    got = eval(calculation.replace(",", ""), functions)
    decimals = len(figure.partition(".")[2])
    rounding = 0.5 * 10**-decimals + 1e-4  # of the figure, and of two operands
    assert got == pytest.approx(float(figure.replace(",", "")), abs=rounding)


def test_each_idea_is_told_alike_in_the_readme_the_ladder_and_the_report():
    for model, idea in ((name, MODELS[name].idea) for name in LADDER):
        assert f"| {model} | {idea} |" in TEXT
        assert f"{model:<21}  {idea}" in ladder.__doc__


def test_the_losses_in_the_readme_are_those_of_the_lesson():
    for model, row in RESULTS["class"]["rows"].items():
        (line,) = (line for line in rows(TEXT) if line.startswith(f"| {model} "))
        assert f"| {row['bits']} ± {row['spread']} |" in line
        config = resolve(model, "default", "shakespeare", {"preset": "class"})
        assert f"| {count_total_parameters(config.model_settings(65)):,} |" in line
    for model, row in RESULTS["ladder"]["rows"].items():
        config = resolve(model, "default", "shakespeare")
        parameters = f"{count_total_parameters(config.model_settings(65)):,}"
        (line,) = (
            line
            for line in rows(TEXTS["ladder.md"])
            if line.startswith(f"| {model} ") and row["train"] in line
        )
        assert line.startswith(f"| {model} | {parameters} | {row['train']} | {row['validation']} |")


def test_the_parameter_table_is_what_params_prints(drakegpt):
    by_name = {}
    for model in drakegpt("params", "--json").json["models"]:
        by_name.setdefault(model["name"], []).extend([model["counted"], model["published"]])
    for name, figures in by_name.items():
        row = "| " + " | ".join([name, *(f"{figure:,}" for figure in figures)]) + " |"
        assert row in TEXTS["parameters.md"]


@pytest.mark.parametrize("name", RESULTS)
def test_the_results_are_on_a_page_with_their_command(name):
    """Each row's figures stand together, in a row of a table or in a paragraph."""
    (page,) = (text for text in TEXTS.values() if f"$ {RESULTS[name]['command']}\n" in text)
    paragraphs = [" ".join(part.split()) for part in page.split("\n\n") if part[:1] != "|"]
    for row, figures in RESULTS[name]["rows"].items():
        wanted = [row, *figures.values()]
        assert any(all(word in text for word in wanted) for text in [*rows(page), *paragraphs])


def fetch_shakespeare(drakegpt):
    fetched = drakegpt("data", "fetch", os.environ["TINY_SHAKESPEARE"], "--name", "shakespeare")
    assert fetched.code == 0, fetched.err


@pytest.mark.skipif("TINY_SHAKESPEARE" not in os.environ, reason="needs tiny Shakespeare")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("result", "model", "options"),
    [
        ("class", "BigramLM", ("--preset", "class")),
        ("class", "MultiHeadAttentionLM", ("--preset", "class")),
        ("ladder", "BigramLM", ()),
        ("ladder", "MultiHeadAttentionLM", ()),
        ("ladder", "ResidualBlocksLM", ()),
        ("ladder", "TransformerLM", ()),
        ("without dropout", "TransformerLM", ("--dropout", 0)),
        ("fast", "TransformerLM", ("--recipe", "fast")),
        ("few bits", "TransformerLM", ("--bits", 1.58, "--iters", 4000)),
    ],
)
def test_losses_on_the_pages_are_what_training_gives(drakegpt, home_as, result, model, options):
    """The full recipe for the rungs that the text argues about: one seed, near the mean of three.

    Another processor rounds differently, and 10,000 steps magnify that a little. Estimates while
    training change nothing about the last weights, and are short.
    """
    home_as(fetch_shakespeare)
    got = drakegpt("train", model, *options, "--eval-iters", 1, "--json", "--quiet").json
    shown = RESULTS[result]["rows"][model]
    near = 0.02 + 2 * float(shown.get("spread", 0))
    if "bits" in shown:
        assert got["bits_per_character"] == pytest.approx(float(shown["bits"]), abs=near)
    for split, key in (("train", "train_loss"), ("validation", "val_loss")):
        if split in shown:
            assert got[key] == pytest.approx(float(shown[split]), abs=near)


def test_the_length_of_the_reference_file_is_told():
    path, lines = re.search(r"Start with `(.*?)`:.*?of (\d+) lines", TEXT, re.S).groups()
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) == int(lines)


# --- Form ---------------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 200


def test_the_readme_links_to_every_page():
    assert set(re.findall(r"\]\(\.readme/([\w-]+\.md)\)", TEXT)) == set(PAGES) - {"README.md"}


@pytest.mark.parametrize("path", LINKING, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(path):
    """Links within the repository, and files of it that are named."""
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("https://"):
            file, _, heading = target.partition("#")
            linked = (path.parent / file).resolve() if file else path
            assert linked.is_relative_to(ROOT.resolve()), target
            assert linked.exists(), target
            assert not heading or heading in heading_ids(linked.read_text(encoding="utf-8"))
    for named in re.findall(r"`((?:drakegpt|tests|\.readme|\.github)/[^`\s]*)`", text):
        assert (ROOT / named).exists(), named


def test_continuous_integration_runs_the_test_command_and_the_linters():
    """On each system the README's test command, and what runs before each commit."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    in_place = TESTS.replace("python3 ", "python ").replace(".venv/bin/", "${{ env.BIN }}/")
    assert in_place.split(" && ") == steps[:3]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    linters = {hook["entry"].split()[0] for hook in hooks["repos"][0]["hooks"]}
    assert {step.partition("}}/")[2].split()[0] for step in steps[4:]} == linters


def test_every_picture_is_shown():
    shown = set(re.findall(r"!\[[^\]]+\]\((?:\.readme/)?([\w-]+\.png)\)", "".join(TEXTS.values())))
    assert shown == {path.name for path in (ROOT / ".readme").glob("*.png")}
