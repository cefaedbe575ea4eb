"""A process that ends at any change of a file leaves names free, or what is whole.

A forked child, for PyTorch is loaded there already, ends at once right before its
n-th change: nothing is flushed, nothing is cleaned up. What comes after is done
by ordinary commands.
"""

import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import torch

from drakegpt.cli.app import main
from drakegpt.data import dataset
from drakegpt.runs.info import Part
from drakegpt.runs.run import open_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")]
SAMPLE = 6  # of each command's changes, in each run of the tests
CRASHED = 99
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
           "os.truncate"}  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TINY = ("--eval-iters", "1", "--eval-interval", "2", "--save-interval", "2", "--batch-size", "2",
        "--context-length", "4", "--embedding-dim", "8", "--num-heads", "2", "--num-layers", "1",
        "-q")  # fmt: skip
TRAIN = ("train", "TransformerLM", "--iters", "5", "--name", "r", *TINY)


def changes(event, arguments, place):
    """Whether an audit event is a change of something in `place`."""
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, str) and path.startswith(place) and bool((flags or 0) & WRITES)
    if event not in CHANGES:
        return False
    first, *rest = arguments
    inside = any(isinstance(each, int) and each > 2 for each in rest[-2:])  # within an open folder
    return inside or os.fspath(first).startswith(place)


def in_a_child(arguments, place, crash_at=0):
    """Run a command in a child; its exit code, and how many changes it made, up to 60,000."""
    reader, writer = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # of threads that a child does not have
        child = os.fork()
    if child == 0:
        _run(arguments, place, crash_at, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        count = int(pipe.read() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), count


def _run(arguments, place, crash_at, writer):
    """What the child does; it never comes back."""
    code, count = 1, 0
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in enumerate("rww"))
        torch.set_num_threads(1)

        def hook(event, given):
            nonlocal count
            if changes(event, given, place):
                count += 1
                if count == crash_at:
                    os._exit(CRASHED)

        sys.addaudithook(hook)
        sys.argv = ["drakegpt", *arguments]
        main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        os.write(writer, str(count).encode())
        os._exit(code)


class Case:
    """A command, what is there before it, and what must be so after a crash in it."""

    name: str
    command: tuple[str, ...]

    def prepare(self, place, drakegpt):
        """Make what the command needs, beside the dataset."""

    def again(self, home):
        """The command that makes up for the crash; `None` if there is nothing to make up for."""
        return self.command

    def result(self, home):
        """What the command comes to, to be the same as without a crash."""
        raise NotImplementedError


def state_of(run):
    """A run's weights and history, without times."""
    lines = [{k: line[k] for k in ("iteration", "val_loss", "event")} for line in run.metrics]
    best = run.folder / "best.safetensors"
    files = [run.last_checkpoint().weights, *([best] if best.exists() else [])]
    return [file.read_bytes() for file in files], lines, run.parts


class Train(Case):
    name, command = "train", TRAIN

    def again(self, home):
        if (home / "runs" / "r").exists():  # it is whole then, so it goes on
            open_run(home / "runs" / "r")
            return ("train", "--resume", "r", "-q")
        return self.command

    def result(self, home):
        return state_of(open_run(home / "runs" / "r"))


class Resume(Train):
    name, command = "resume", ("train", "--resume", "r", "--iters", "9", "-q")

    def prepare(self, place, drakegpt):
        done = drakegpt(*TRAIN)
        assert done.code == 0, done.err

    def again(self, home):
        run = open_run(home / "runs" / "r")
        run.last_checkpoint().verify()
        assert run.config.iters in (5, 9)
        assert run.parts[0] == Part(0, 5, 5)
        return self.command


class Pack(Resume):
    name, command = "pack", ("export", "packed", "r", "--name", "q")

    def again(self, home):
        return None if (home / "runs" / "q").exists() else self.command

    def result(self, home):
        return state_of(open_run(home / "runs" / "q"))


class Import(Case):
    name = "import"

    def prepare(self, place, drakegpt):
        size = dataset.load().tokenizer.vocab_size
        torch.manual_seed(1)
        torch.save({"token_embedding_table.weight": torch.randn(size, size)}, place / "w.pt")
        self.command = ("runs", "import", str(place / "w.pt"), "--model", "BigramLM", "--name", "q")

    def again(self, home):
        return None if (home / "runs" / "q").exists() else self.command

    def result(self, home):
        return state_of(open_run(home / "runs" / "q"))


class Remove(Resume):
    name, command = "remove", ("runs", "remove", "r", "-y")

    def again(self, home):
        if not (home / "runs" / "r").exists():
            return None
        open_run(home / "runs" / "r").last_checkpoint().verify()
        return self.command

    def result(self, home):
        return list((home / "runs").iterdir())


class Fetch(Case):
    name = "fetch"

    def prepare(self, place, drakegpt):
        (place / "text.txt").write_text("all the lines of another song\n" * 30)
        self.command = ("data", "fetch", str(place / "text.txt"), "--name", "other")

    def again(self, home):
        if "other" in dataset.list_names():
            dataset.load("other").verify()
        assert dataset.get_default_name() in ("small", "other")
        return self.command

    def result(self, home):
        data = dataset.load("other")
        data.verify()
        return data.metadata.version, dataset.get_default_name()


class Generate(Resume):
    name, command = "generate", ("generate", "r", "-n", "99", "--seed", "1", "--no-stream")

    def again(self, home):
        return self.command

    def result(self, home):
        return {file.read_text() for file in (home / "generations").iterdir()}


CASES = [Train, Resume, Pack, Import, Remove, Fetch, Generate]


def check(kind, choose, drakegpt, home, tmp_path, monkeypatch):
    """Let a command crash at the changes that `choose` takes of all, and make up for each."""
    work = home.parent / "tmp"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    case, place = kind(), (str(home), str(work))
    case.prepare(tmp_path, drakegpt)
    kept = tmp_path / "kept"
    shutil.copytree(home, kept)
    code, count = in_a_child(case.command, place)
    assert code == 0
    assert count > 1
    whole = case.result(home)
    for n in choose(count):
        shutil.rmtree(home)
        shutil.copytree(kept, home)
        code, _ = in_a_child(case.command, place, crash_at=n)
        # With what was loaded meanwhile, a command may make one change less, and so end well.
        assert code == CRASHED or (code == 0 and n == count), f"{case.name} at {n} of {count}"
        listed = drakegpt("runs", "list", "--json")
        assert [r for r in listed.json["runs"] if r["problem"]] == [], f"{case.name} at {n}"
        assert left_in(home, work) == [], f"{case.name} at {n} of {count}"
        if more := case.again(home):
            done = drakegpt(*more)
            assert done.code == 0, f"{case.name} at {n} of {count}: {done.err}"
        assert case.result(home) == whole, f"{case.name} at {n} of {count}"


def left_in(*folders):
    """Temporary files and folders."""
    found = [path for folder in folders for path in Path(folder).rglob(".*")]
    return [p for p in found if p.name.endswith(".unfinished") or "drakegpt-work" in p.name]


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.name)
def test_a_crash_anywhere_leaves_names_free_or_what_is_whole(
    drakegpt, prepared, home, tmp_path, monkeypatch, kind
):
    seed = time.time_ns()
    chance = random.Random(seed)
    sys.stdout.write(f"seed {seed}\n")

    def choose(count):
        return chance.sample(range(1, count + 1), min(SAMPLE, count))

    check(kind, choose, drakegpt, home, tmp_path, monkeypatch)


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.name)
def test_a_crash_at_every_change_leaves_names_free_or_what_is_whole(
    drakegpt, prepared, home, tmp_path, monkeypatch, kind
):
    check(kind, lambda count: range(1, count + 1), drakegpt, home, tmp_path, monkeypatch)
