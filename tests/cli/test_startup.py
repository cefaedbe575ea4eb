"""What a command imports before it works: only what it needs."""

import subprocess
import sys

import pytest

READING = [
    "data list", "data list --json", "data show", "data show small --json", "runs", "runs list",
    "runs --help", "runs list --json", "runs show r", "runs show latest --json", "params --help",
]  # fmt: skip
COMPILER = ("torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes", "sympy")
COMPUTING = [
    "params", "params --preset gpt1", "generate r -n 50 --seed 1", "generate p -n 50 --seed 1",
    "generate r r -n 9 --seed 1", "generate r -n 9 --counts",
]  # fmt: skip


def imported(arguments, **environment):
    """Run a command in a new process, and return the modules that it has imported at its end."""
    code = (
        "import sys\n"
        f"sys.argv = ['drakegpt', *{arguments.split()!r}]\n"
        "from drakegpt.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.fixture
def packed(trained, drakegpt):
    brief = ("--iters", 2, "--eval-iters", 1, "-q")
    assert drakegpt("train", "TransformerLM", *brief, "--name", "t").code == 0
    assert drakegpt("export", "packed", "t", "--name", "p").code == 0


@pytest.mark.parametrize("arguments", READING)
def test_what_reads_json_imports_no_torch(trained, arguments):
    assert not {"torch", "wandb", "kaggle", "matplotlib", "asyncio"} & imported(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMPUTING)
def test_what_computes_briefly_imports_no_compiler(packed, arguments):
    """Beside PyTorch itself, whose own import loads none of these."""
    assert "torch" in (modules := imported(arguments))
    assert not modules & set(COMPILER)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("drakegpt generate ", {"r", "latest", "best", "BigramLM"}),
        ("drakegpt eval l", {"latest"}),
        ("drakegpt runs show ", {"r", "latest", "best"}),
        ("drakegpt runs remove r", {"r"}),
        ("drakegpt train --resume ", {"r", "latest", "best"}),
        ("drakegpt data show ", {"small"}),
        ("drakegpt compare --data s", {"small"}),
    ],
)
def test_runs_and_datasets_are_completed_without_torch(trained, words, offered):
    code = "import sys; from drakegpt.cli.app import main\ntry:\n    main()\nfinally:\n    "
    code += "assert not {'torch', 'numpy'} & sys.modules.keys()"
    import os

    count = len(words.split()) - (not words.endswith(" "))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ
        | {"_DRAKEGPT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "AssertionError" not in done.stderr, done.stderr
    assert offered <= set(done.stdout.split()), done.stderr
