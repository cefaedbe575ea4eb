"""Every test gets a home of its own, and no setting of the machine it runs on."""

import io
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import fuzzing
import learning
import pytest
import torch
from program_runs import Outcome

from drakegpt.cli.app import main
from drakegpt.training import dtype_trial

# What a shell starts in the background may be deaf to Ctrl-C, and so would the programs be that
# tests start and stop.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Tests are of what a CPU does, on a machine with a GPU too, but for those marked `gpu`.

    Random cases have a seed that is known; Hypothesis takes it up from here.
    """
    fuzzing.exhaustive = "exhaustive" in config.getoption("markexpr")
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))
    if "gpu" not in config.getoption("markexpr"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if "MPLCONFIGDIR" not in os.environ:  # all processes share one list of fonts: it takes 2 s
        os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="drakegpt-matplotlib-")
        config.add_cleanup(partial(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True))


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if exitstatus:
        seed = config.option.hypothesis_seed
        terminalreporter.write_line(f"Random cases: --hypothesis-seed={seed}")


def pytest_collection_modifyitems(config, items):
    if "exhaustive" not in config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("exhaustive"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: pytest -m exhaustive"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU: pytest -m gpu -n 0"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("DRAKEGPT_", "KAGGLE_", "WANDB_", "XDG_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.setenv("DRAKEGPT_HOME", str(folder / "drakegpt"))
    # No test depends on what this processor is good at.
    monkeypatch.setattr(dtype_trial, "has_fast_bfloat16", lambda: False)
    # Programs that tests start work on small tensors too, and beside other tests.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    # No test may reach beyond this machine: requests without a loopback address fail at once.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    return folder / "drakegpt"


@pytest.fixture
def drakegpt(monkeypatch, capsys):
    """Run the program within this process, which saves its start: `drakegpt("train", …)`."""

    def run(*arguments, stdin=None, **environment):
        given = stdin if isinstance(stdin, bytes | None) else stdin.encode()
        logger = logging.getLogger("drakegpt")
        handlers, threads = logger.handlers[:], torch.get_num_threads()
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["drakegpt", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given or b""), "utf-8"))
            for key, value in environment.items():
                patch.setenv(key, str(value))
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = stop.code or 0
        logger.handlers[:] = handlers
        torch.set_num_threads(threads)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def made_homes():
    """What `home_as` has made so far: by its maker, the folder and what the maker returned."""
    return {}


@pytest.fixture
def home_as(home, made_homes, drakegpt, tmp_path_factory, monkeypatch):
    """Begin with a copy of the home that `make(drakegpt)` makes, once in a session."""

    def begin(make):
        if make not in made_homes:
            folder = tmp_path_factory.mktemp("home")
            with monkeypatch.context() as patch:
                patch.setenv("DRAKEGPT_HOME", str(folder))
                made_homes[make] = folder, make(drakegpt)
        folder, result = made_homes[make]
        shutil.copytree(folder, home, dirs_exist_ok=True)
        return result

    return begin


@pytest.fixture
def program():
    """Run the installed program: for streams, signals and what its start brings."""
    path = shutil.which("drakegpt", path=str(Path(sys.executable).parent))
    assert path, "drakegpt is not installed beside this Python"

    def run(*arguments, stdin=None, **environment):
        done = subprocess.run(
            [path, *map(str, arguments)],
            input=stdin if isinstance(stdin, bytes | None) else stdin.encode(),
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**os.environ, **{key: str(value) for key, value in environment.items()}},
            timeout=300,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def corpus():
    return learning.small_text()


@pytest.fixture
def prepared(corpus):
    return learning.prepare(corpus)


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests work on small tensors, where more threads cost more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
