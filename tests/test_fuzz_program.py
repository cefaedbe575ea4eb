"""Whatever is asked of the program, it answers in words and changes only what it is to change.

No command line, study or stream brings another exception, another exit code than the documented
ones, or a change to a file that is not the command's own to change.
"""

import io
import os
import shutil
import sqlite3
import sys
import time
from contextlib import closing, suppress
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer
from fuzzing import contents, damaged, damages, examples
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.bench import timing
from drakegpt.cli.app import app
from drakegpt.config import MODEL_NAMES
from drakegpt.data.prepare import prepare_dataset
from drakegpt.errors import UsageError
from drakegpt.training import run_length

pytestmark = pytest.mark.slow

CODES = (0, 1, 2)  # a command that is not interrupted
SECONDS = 60  # of the processor, for any of these small commands

TEXT = "the quick brown fox jumps over the lazy dog\n" * 12
SIZE = {"embedding_dim": 8, "num_heads": 2, "num_layers": 1, "batch_size": 2, "context_length": 4}
BRIEF = {**SIZE, "eval_iters": 1}
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in BRIEF.items()]
SETS = [word for name, value in BRIEF.items() for word in ("--set", f"{name}={value}")]
SWEEP = ("sweep", "BlocksLM", "--param", "seed=1,2", "--iters", "1", "--name", "search", *SETS)


# --- A home with everything in it, a fresh one for each case ----------------------------------


@pytest.fixture
def fresh(drakegpt, home, tmp_path_factory, monkeypatch):
    """Makes the home whole again, and the folder that the program is started in."""
    whole = tmp_path_factory.getbasetemp() / "whole"
    here = home.parent / "here"
    if not whole.exists():
        made = whole.with_name("made")
        with monkeypatch.context() as patch:
            patch.setenv("DRAKEGPT_HOME", str(made / "drakegpt"))
            fill(made, drakegpt)
        made.rename(whole)

    def make():
        os.chdir(home.parent)
        for folder in (home, here):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole / "drakegpt", home)
        shutil.copytree(whole / "here", here)
        monkeypatch.chdir(here)
        return home.parent

    return make


def fill(folder, drakegpt):
    for name in ("small", "other"):
        about = {"source": "t", "provenance": "t", "source_sha256": ""}
        prepare_dataset(TEXT + name, name=name, **about)
    for model, name in (("BigramLM", "whole"), ("TransformerLM", "deep")):
        done = drakegpt("train", model, "--iters", 2, "--name", name, "--data", "small", *FLAGS)
        assert done.code == 0, done.err
    done = drakegpt(*SWEEP)
    assert done.code == 0, done.err
    here = folder / "here"
    here.mkdir()
    (here / "notes.html").write_text("<p>mine")
    (here / "songs.csv").write_text("Lyric,x\n" + f'"{TEXT}",1\n')
    (here / "song.txt").write_text(TEXT)
    (here / "settings.toml").write_text("iters = 2\neval_iters = 1\n")
    shutil.copy(folder / "drakegpt/runs/deep/best.safetensors", here / "a.safetensors")


def changes(before, after):
    """Files that are new, and files that are gone or hold something else."""
    return set(after) - set(before), {name for name in before if after.get(name) != before[name]}


# What commands may write: of files that are there, and new ones. Scores and figures are kept.
SCORES = [
    f"drakegpt/runs/*/{name}.json" for name in ("score*", "standing*", "mixture*", "originality*")
]
KEPT = {
    "compare": [*SCORES, "drakegpt/comparisons/*"],
    "eval": SCORES,
    "export page": SCORES,
    "sweep": ["drakegpt/runs/search*", "drakegpt/sweeps/search/*"],
    "data add": ["drakegpt/data/*"],
    "data fetch": ["drakegpt/data/*"],
    "write": ["drakegpt/data/*"],
}  # fmt: skip
# From a text.
DERIVED = [
    f"drakegpt/data/*/{name}" for name in ("ngrams-*/*", "suffixes/*", "originality_of_counts.json")
]
MADE = {
    **KEPT,
    "compare": [*KEPT["compare"], *DERIVED],
    "eval": [*SCORES, *DERIVED],
    "write": ["drakegpt/data/*", "drakegpt/runs/*"],
    "train": ["drakegpt/runs/*", *DERIVED],
    "generate": ["drakegpt/generations/*"],
    "runs import": ["drakegpt/runs/*"],
    "export page": [*SCORES, *DERIVED, "here/*"],
    "export packed": ["drakegpt/runs/*"],
    "export transformers": ["here/*"],
    "export onnx": ["here/*"],
}


def check(folder, before, words, code, err):
    """The files after a command are those that it may leave."""
    command = next((name for name in NAMES if words[: len(name.split())] == name.split()), "")
    assert code in CODES, err
    assert "Traceback" not in err
    new, other = changes(before, contents(folder))
    new = {name for name in new if not name.endswith((".lock", "/turn"))}
    other_may, new_may = list(KEPT.get(command, [])), list(MADE.get(command, []))
    if code == 2:
        other_may = new_may = []
    if command == "train" and any(word.startswith("--resume") for word in words):
        other_may += ["drakegpt/runs/*"]
    if command == "sweep":
        new_may += ["drakegpt/runs/*", "drakegpt/sweeps/*", "here/*"]
    if command == "compare" and code != 2:
        new_may += ["drakegpt/runs/*"] * ("--train" in words) + ["here/*"]
        if any(word.startswith("--html") for word in words) and "--force" in words:
            other_may += ["here/*"]
    if command.startswith("export") and code != 2 and "--force" in words:
        other_may += ["here/*"]
    if command == "data remove" and code != 2 and {"--yes", "-y"} & set(words):
        other_may += ["drakegpt/data/*"]
    if command == "runs remove" and code != 2 and {"--yes", "-y"} & set(words):
        other_may += ["drakegpt/runs/*"]
    for names, may in ((other, other_may), (new, new_may)):
        assert not [name for name in names if not any(fnmatch(name, p) for p in may)], (words, err)


# --- (1) command lines ------------------------------------------------------------------------


def commands(group, *before):
    """All commands of the program with the words that start them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *before, name)
        else:
            yield " ".join((*before, name)), command


ALL = dict(commands(typer.main.get_command(app)))
NAMES = list(ALL)

odd_words = st.sampled_from(
    ["", " ", "-", "--", "x", "0", "-1", "1.5", "nan", "inf", "1e400", "9" * 400, "\u0665", "²",
     "[/]", "[red]", "\x1b[31m", "\u202e", "é", "\udcff", "a=b", "=", "..", ".", "/", "../..", "~x",
     "/dev/null", "a/b", "A" * 300, "'", '"', "None", "true", "1..2", "1..2:log", ",", "1,,2",
     "-h", "--no-such", "-z", "--json=1", "{}", "%s", "\n", "CON", "~", "file:///x", "C:\\x"]
)  # fmt: skip
good_words = st.sampled_from(
    [*MODEL_NAMES, "small", "other", "whole", "deep", "search", "search_0001", "notes.html",
     "songs.csv", "song.txt", "settings.toml", "a.safetensors", "new.html", "new.db", "here",
     "../drakegpt/runs/whole", "../drakegpt/sweeps/search/study.db", "Lyric", "char", "bpe", "fast",
     "original", "default", "cosine", "constant", "plateau", "adamw", "muon", "float32", "bfloat16",
     "cpu", "cuda", "auto", "1.58", "4", "32", "grid", "random", "tpe", "validation", "off",
     "training-tail", "shakespeare-sweep", "seed=1,2", "max_lr=1e-3..1e-2:log", "dropout=0.1",
     "num_layers=1", "seed=1", "embedding_dim=8", "0.5", "1e-3", "model=BigramLM", "iters=1"]
)  # fmt: skip
few = st.sampled_from(["0", "1", "2", "3", "-1", "1.5", "", "x", "nan", "9" * 400, str(2**63), "é"])
# Options whose values decide how long the work takes.
LONG = {
    "iters", "window_order", "epochs", "trials", "length", "num_samples", "seeds", "rounds",
    "eval_iters", "eval_interval", "grad_accumulation", "batch_size", "context_length",
    "embedding_dim", "num_heads", "num_layers", "vocab_size", "save_interval",
}  # fmt: skip
# Taken only with values that are refused: work that has no end here, or takes others' programs.
moments = st.sampled_from(["0", "-1", "nan", "inf", "x", "", "1e-9", "1e400"])
REFUSED = {"wandb": odd_words, "minutes": moments}
LEFT_OUT = {"--compile", "--memory"}  # a compiler, new processes: minutes

FIRST = {
    "train": ["--iters=2", *FLAGS],
    "sweep": ["--iters=1", "--trials=1", *SETS],
    "compare": ["--iters=1", *SETS],
    "generate": ["--length=5"],
    "write": ["--minutes=0.1"],
}


@st.composite
def options(draw, command):
    """One option of a command, as a list of words."""
    parameter = draw(st.sampled_from([p for p in command.params if p.opts[0].startswith("-")]))
    flag = draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts]))
    if flag in LEFT_OUT:
        return []
    if getattr(parameter, "is_flag", False):
        return [flag]
    values = few if parameter.name in LONG else odd_words | good_words
    value = draw(REFUSED.get(parameter.name, values))
    return [f"{flag}={value}"] if draw(st.booleans()) else [flag, value]


@st.composite
def command_lines(draw, name):
    """A command with options, arguments and other words in any order."""
    pieces = draw(st.lists(options(ALL[name]), max_size=4))
    pieces += [[word] for word in draw(st.lists(good_words, max_size=2))]
    pieces += [[word] for word in draw(st.lists(odd_words, max_size=1))]
    words = [word for piece in draw(st.permutations(pieces)) for word in piece]
    return [*name.split(), *FIRST.get(name, []), *words]


named = ["DATA", "DEVICE", "SEED", "DROPOUT", "ITERS", "MODEL", "X"]
variables = st.dictionaries(
    st.sampled_from([*(f"DRAKEGPT_{name}" for name in named), "COLUMNS", "TERMINAL_WIDTH"]),
    st.sampled_from(
        ["", "x", "0", "-1", "nan", "small", "[/]", "\x1b[31m", "\udcff", "9" * 400, "²"]
    ),
    max_size=1,
)


def slow(words):
    """Whether a command would train many runs, and several sizes of them."""
    return "--train" in words and bool({"--low-bit", "--regularization", "--claims"} & set(words))


@pytest.fixture
def nothing_measured(monkeypatch):
    def measure(*_, **__):
        raise UsageError("Nothing is measured here.", "Look elsewhere.")

    monkeypatch.setattr(timing, "measure", measure)
    monkeypatch.setattr(run_length, "estimate_seconds", lambda *_: 1.0)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@examples(3, of_all=130)
def test_command_lines(drakegpt, fresh, nothing_measured, name, data):
    words = data.draw(command_lines(name), "words")
    environment = data.draw(variables, "variables")
    if slow(words):
        words.remove("--train")
    folder = fresh()
    before, since = contents(folder), time.process_time()
    outcome = drakegpt(*words, **environment)
    check(folder, before, words, outcome.code, outcome.err)
    assert time.process_time() - since < SECONDS


# --- (2) studies ------------------------------------------------------------------------------

STUDY = Path("drakegpt/sweeps/search/study.db")


def tables(database):
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in found]


@st.composite
def row_changes(draw):
    """What becomes of one place in the database: (table, column, row) and a value, or its row."""
    where = [draw(st.integers(0, 2**16)) for _ in range(3)]
    texts = st.text(st.characters(codec="utf-8"), max_size=10)
    known = st.sampled_from(
        ["RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING", "MINIMIZE", "MAXIMIZE", "search",
         "{}", "[]", "null", '"x"', "1", "-1", '{"name": "IntDistribution"}', "inf", "NaN",
         "state", "run", "val_loss", "iterations", "definition", "../../x", '"../../x"', "[/]",
         "1" * 400, "[" * 5000, "2020-01-01 00:00:00.000000", "FINITE", "INF_POS", 0, 1, 2, -1]
    )  # fmt: skip
    numbers = st.integers(-(2**63), 2**63 - 1) | st.floats()
    value = draw(st.none() | numbers | texts | st.binary(max_size=9) | known)
    return (*where, draw(st.sampled_from(["set"] * 5 + ["remove", "copy"])), value)


def change_row(file, change):
    *where, kind, value = change
    with closing(sqlite3.connect(file)) as database, suppress(sqlite3.Error):
        table = tables(database)[where[0] % len(tables(database))]
        rows = database.execute(f"SELECT rowid, * FROM {table}")
        columns = [name for name, *_ in rows.description][1:]
        rowids = [row[0] for row in rows]
        if not rowids:
            return
        column, row = columns[where[1] % len(columns)], rowids[where[2] % len(rowids)]
        if kind == "remove":
            database.execute(f"DELETE FROM {table} WHERE rowid = ?", [row])
        elif kind == "copy":
            new = ", ".join([f"max({columns[0]}) + 1", *columns[1:]])
            one = f"SELECT {new} FROM {table} WHERE rowid = ?"
            database.execute(f"INSERT INTO {table} {one}", [row])
        else:
            database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [value, row])
        database.commit()


def sweep_again(drakegpt, folder, *more):
    before, since = contents(folder), time.process_time()
    words = [*SWEEP, "-q", *more]
    outcome = drakegpt(*words)
    check(folder, before, words, outcome.code, outcome.err)
    if outcome.code == 0 and "--json" in more:
        assert len(outcome.json["trials"]) >= 1
    assert time.process_time() - since < SECONDS


@given(
    changed=st.lists(row_changes(), min_size=1, max_size=3),
    more=st.sampled_from([[], ["--json"], ["--trials=1"]]),
)
@examples(8, of_all=600)
def test_studies_with_odd_rows(drakegpt, fresh, changed, more):
    folder = fresh()
    for change in changed:
        change_row(folder / STUDY, change)
    sweep_again(drakegpt, folder, *more)


@given(damage=damages)
@examples(6, of_all=300)
def test_damaged_studies(drakegpt, fresh, damage):
    folder = fresh()
    file = folder / STUDY
    file.write_bytes(damaged(file.read_bytes(), damage, step=37))
    sweep_again(drakegpt, folder)


# --- (3) streams ------------------------------------------------------------------------------


class Ending(io.RawIOBase):
    """A stream of the program that ends after some bytes: its reader goes, or its room is used up.

    As a process has it: all else fails at the stream's number, until that stands for another file.
    """

    def __init__(self, kind, room):
        self._room = room
        if kind == "full":
            self._number = os.open("/dev/full", os.O_WRONLY)
        else:
            reader, self._number = os.pipe()
            os.close(reader)

    def writable(self):
        return True

    def fileno(self):
        return self._number

    def write(self, data):
        if self._room >= len(data):
            self._room -= len(data)
            return len(data)
        self._room = 0
        return os.write(self._number, data)

    def close(self):
        if not self.closed:
            os.close(self._number)
        super().close()


def stream(kind, room):
    """A stream as a program finds it in `sys`; None where it was closed before the start."""
    if kind == "closed":
        return None
    buffer = io.BytesIO() if kind == "whole" else io.BufferedWriter(Ending(kind, room), 64)
    return io.TextIOWrapper(buffer, "utf-8", line_buffering=bool(room % 2))


TOLD = [
    ["data", "list"], ["data", "show", "small"], ["data", "show", "--json"], ["runs"],
    ["runs", "list", "--json"], ["runs", "show", "whole"], ["runs", "show", "nothing"],
    ["runs", "remove", "whole"], ["runs", "remove", "deep", "--yes"], ["eval", "whole"],
    ["eval", "deep", "--json"], ["compare"], ["compare", "--json"], ["generate", "deep", "-n", "9"],
    ["generate", "whole", "-n", "99", "--num-samples", "2"], ["generate", "-n", "9", "--json"],
    ["generate", "-n", "9", "--no-stream"], ["params"], ["params", "--json"], ["--help"],
    ["--version"], ["train", "--help"], ["train", "--list-presets"], ["nothing"], [],
    ["train", "BigramLM", "--print-config"], ["train", "BigramLM", "--iters=2", *FLAGS],
    ["train", "BlocksLM", "--iters=2", "--json", *FLAGS], ["train", "--resume", "deep"],
    [*SWEEP, "--trials=1"], [*SWEEP, "--json"], ["data", "fetch", "song.txt", "--name", "new"],
    ["data", "add", ".", "--json"], ["data", "remove", "other"],
    ["data", "remove", "other", "-y"],
    ["data", "fetch", "songs.csv", "--name=new", "--json"], ["export", "packed", "deep"],
    ["runs", "import", "a.safetensors", "--model=BigramLM"], ["bench", "BigramLM"],
]  # fmt: skip
kinds = st.sampled_from(["whole", "closed", "broken", "full"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@given(
    words=st.sampled_from(TOLD),
    out=st.tuples(kinds, st.integers(0, 3000)),
    err=st.tuples(kinds, st.integers(0, 1000)),
)
@examples(20, of_all=800)
def test_streams_that_end(drakegpt, fresh, nothing_measured, monkeypatch, words, out, err):
    folder = fresh()
    before = contents(folder)
    with monkeypatch.context() as patch:
        streams = stream(*out), stream(*err)
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        outcome = drakegpt(*words)
        sys.stdout.flush()  # as Python does at its end, which must not fail
        for given, opened in zip(streams, (sys.stdout, sys.stderr), strict=True):
            if given is None:
                opened.close()
    said = "" if err[0] != "whole" else streams[1].buffer.getvalue().decode()
    check(folder, before, words, outcome.code, said)
    for each in filter(None, streams):
        with suppress(OSError):
            each.close()
