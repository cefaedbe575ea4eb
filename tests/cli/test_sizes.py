"""Sizes that cannot work are refused in one sentence, at once, and nothing is made."""

import json
import subprocess
import sys

import pytest
import torch

from drakegpt.errors import show_value

HUGE = "10000000000000000000"
# Command line, exit code, words that stderr must hold.
REFUSED = [
    ("train TransformerLM --embedding-dim 1000000 --num-heads 2", 1, "--embedding-dim"),
    ("train TransformerLM --batch-size 1000000000", 1, "--batch-size"),
    ("train TransformerLM --num-layers 100000000", 1, "--num-layers"),
    ("train TransformerLM --eval-iters 1000000000000", 1, "--eval-iters"),
    ("train TransformerLM --grad-accumulation 1000000000000", 1, "--grad-accumulation"),
    ("train TransformerLM --context-length 10000000", 1, "too short"),
    ("train BigramLM --batch-size 1000000000000 --minutes 1", 1, "--batch-size"),
    ("train BigramLM --batch-size 1000000000000 --seeds 2", 1, "--batch-size"),
    (f"train TransformerLM --embedding-dim {HUGE}", 2, "embedding_dim"),
    (f"train TransformerLM --iters {HUGE}", 2, "iters"),
    ("train TransformerLM --max-lr 1e400", 2, "max_lr"),
    ("train TransformerLM --max-lr 1e308", 2, "max_lr"),
    ("train TransformerLM --max-lr nan", 2, "max_lr"),
    ("train TransformerLM --seeds 5000000000", 2, "--seeds"),
    ("compare --train --iters 2 --set embedding_dim=100000000", 1, "--embedding-dim"),
    ("compare --train --low-bit --iters 2 --set embedding_dim=100000000", 1, "--embedding-dim"),
    ("compare --train --low-bit --iters 2 --set num_layers=100000000", 1, "--num-layers"),
    ("compare --train --regularization --set embedding_dim=100000000", 1, "--embedding-dim"),
    (f"compare --seeds {HUGE}", 2, "--seeds"),
    ("sweep BigramLM --param max_lr=1e-4,1e-3 --set batch_size=1000000000000", 1, "--batch-size"),
    ("sweep TransformerLM --param num_layers=100000000,200000000", 1, "--num-layers"),
    (f"sweep BigramLM --param embedding_dim=1..{HUGE}", 2, "embedding_dim"),
    (f"sweep BigramLM --param max_lr=1e-4,1e-3 --trials {HUGE}", 2, "trials cannot be"),
    (f"params --vocab-size {HUGE}", 2, "--vocab-size"),
    (f"generate r -n {HUGE}", 2, "--length"),
    ("generate r -n 1000000000000000", 1, "--length"),
    ("generate r --num-samples 1000000000000000", 1, "--num-samples"),
    ("generate r --temperature inf", 2, "--temperature"),
    ("generate r --repetition-penalty 1e400", 2, "--repetition-penalty"),
    (f"bench --rounds {HUGE}", 2, "--rounds"),
    (f"data fetch sample --tokenizer bpe --name b --vocab-size {HUGE}", 2, "vocabulary"),
    ("data fetch ~nosuchuser/x.txt", 2, "~nosuchuser"),
]


def files(home):
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("line", "code", "word"), REFUSED, ids=[line for line, _, _ in REFUSED])
def test_what_cannot_work_is_refused(drakegpt, trained, home, line, code, word):
    before = files(home)
    outcome = drakegpt(*line.split())
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert word in outcome.err
    assert files(home) == before


@pytest.mark.parametrize("command", ["runs", "train BigramLM", "data list"])
def test_a_home_of_nobody(drakegpt, command):
    outcome = drakegpt(*command.split(), DRAKEGPT_HOME="~nosuchuser/x")
    assert (outcome.code, "~nosuchuser" in outcome.err) == (2, True)


def test_the_largest_count_that_is_no_size_is_taken(drakegpt, trained):
    assert drakegpt("generate", "r", "-n", 5, "--top-k", HUGE).code == 0


PEAK = """
import resource, sys
from drakegpt.cli.app import main
try:
    main()
finally:
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no ru_maxrss")
@pytest.mark.parametrize(
    "line",
    [
        "train TransformerLM --embedding-dim 200000000 --num-heads 2",
        "train TransformerLM --num-layers 200000000",
        "train TransformerLM --batch-size 1000000000000",
        "compare --train --low-bit --iters 2 --set embedding_dim=100000000",
        "generate r -n 1000000000000000",
    ],
)
def test_refusing_takes_little_memory(trained, line):
    # By way of a shell, as Linux hands the peak of this process down to what it starts itself.
    command = [sys.executable, "-c", PEAK, *line.split()]
    starter = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    done = subprocess.run([sys.executable, "-c", starter, *command], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "not enough memory" in done.stderr
    assert int(done.stdout) < 500 * 10**6


def nested(opened, closed, levels):
    return "iters: " + opened * levels + closed * levels


LAUGHS = "a: &a0 [x]\n" + "".join(
    f"b{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
SETTINGS = {
    "laughs.yaml": LAUGHS + "iters: *a29",
    "alias.yaml": "iters: &x 5\nbatch_size: *x",
    "merge.yaml": "a: &x {iters: 5}\n<<: *x",
    "deep.yaml": nested("[", "]", 5000),
    "deep.toml": f"iters = {'[' * 5000}{']' * 5000}",
    "digits.toml": f"iters = 0x{'f' * 100_000}",
    "digits.yaml": f"iters: 0x{'f' * 100_000}",
    "large.toml": "iters = 99999999999999999999",
    "inf.toml": "max_lr = inf",
    "long.toml": f'iters = "{"x" * 1_000_000}"',
    "key.toml": f"{'x' * 1_000_000} = 1",
    "model.toml": f'model = "{"x" * 1_000_000}"',
    "list.toml": f"iters = [{'1,' * 100_000}]",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_in_files_that_cannot_be(drakegpt, trained, home, tmp_path, name):
    (tmp_path / name).write_text(SETTINGS[name])
    before = files(home)
    model = [] if name == "model.toml" else ["BigramLM"]
    outcome = drakegpt("train", *model, "-q", "--config", tmp_path / name)
    assert outcome.code == 2, outcome.err
    assert len(outcome.err) < 2000
    assert files(home) == before


@pytest.mark.parametrize("name", ["config.toml", "weights"])
def test_layers_by_the_million_in_a_run_are_not_built(drakegpt, trained, home, name):
    """What a run, or a file of weights, says of itself is held against the weights there are."""
    from safetensors.torch import save_file

    drakegpt("train", "BlocksLM", "--iters", 2, "--eval-iters", 1, "-q", "--name", "b")
    folder = home / "runs/b"
    if name == "config.toml":
        text = (folder / name).read_text().replace("num_layers = 3", "num_layers = 100000000")
        (folder / name).write_text(text)
        (folder / "scores.json").unlink()
        commands = ["generate b", "eval b", "train --resume b --iters 9", "export packed b"]
    else:
        from drakegpt.runs.checkpoint import METADATA_KEY, load_weights

        weights, about = load_weights(next(folder.glob("checkpoints/*/weights.safetensors")))
        model = json.loads(about["model"]) | {"num_layers": 100_000_000}
        said = {METADATA_KEY: json.dumps(about | {"model": json.dumps(model)})}
        save_file(weights, folder / "large.safetensors", said)
        commands = [f"generate {folder}/large.safetensors"]
    for command in commands:
        outcome = drakegpt(*command.split())
        assert (outcome.code, outcome.out) == (1, ""), outcome.err
        assert "numbers" in outcome.err or "memory" in outcome.err


OUT_OF_MEMORY = [
    MemoryError("Unable to allocate 7.28 TiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory."),
    OSError(12, "Cannot allocate memory"),
]
USES = [
    ("drakegpt.runs.checkpoint.safe_open", "eval r"),
    ("drakegpt.runs.checkpoint.safe_open", "generate r"),
    ("drakegpt.runs.checkpoint.safe_open", "generate {home}/runs/r/best.safetensors"),
    ("numpy.load", "train BigramLM --iters 2 -q"),
    ("numpy.load", "sweep BigramLM --iters 2 --param max_lr=1e-3 -q"),
    ("drakegpt.models.packed_linear.PackedLinear.__init__", "export packed b"),
    ("drakegpt.data.preprocess.train_bpe", "data fetch sample --tokenizer bpe --name p"),
    ("drakegpt.data.preprocess.scan", "data fetch sample --name p"),
    ("drakegpt.models.size.build_model", "params"),
    ("drakegpt.models.size.build_model", "compare --train --iters 2 -q"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("place", "line"), USES, ids=[f"{p} {c}" for p, c in USES])
def test_memory_that_runs_out_is_one_sentence(
    drakegpt, trained, home, monkeypatch, place, line, error
):
    if line.endswith(" b"):
        drakegpt("train", "BlocksLM", "--iters", 2, "--eval-iters", 1, "-q", "--name", "b")

    for scores in home.glob("runs/*/scores.json"):  # else nothing is computed
        scores.unlink()

    def fail(*_, **__):
        raise error

    runs = {path.name for path in (home / "runs").iterdir()}
    monkeypatch.setattr(place, fail)
    outcome = drakegpt(*line.replace("{home}", str(home)).split())
    assert outcome.code == 1, outcome.err
    assert "memory" in outcome.err
    assert "damaged" not in outcome.err
    assert {path.name for path in (home / "runs").iterdir()} == runs


def test_values_in_messages_are_short_whatever_they_are():
    laughs = ["x"]
    for _ in range(60):
        laughs = [laughs] * 9
    for value in (laughs, "x" * 10**6, 10**10_000, [16**100_000], dict.fromkeys(range(10**5)), 1.5):
        assert 0 < len(show_value(value)) <= 200
    assert (show_value("a"), show_value(5), show_value(None)) == ("'a'", "5", "None")
