"""What does not work on a GPU shall end well: each case is a process of its own.

What fails here may leave a process unusable. Started as `python -m check.fallback CASE DEVICE`.
"""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import torch

from . import product

FOLDER = Path(__file__).resolve().parents[1]
SHORT = {"iters": 12, "eval_interval": 12, "eval_iters": 2, "dropout": 0.1, "compile": False}
# Of a GPU's memory, less than the model needs, whatever the GPU.
LITTLE_MEMORY = 0.012


def fallback(options, results):
    """Run all cases; the exit code tells what came of each."""
    device = "cpu" if options.dry_run else "cuda"
    path = os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))
    for name, (_, expected) in CASES.items():
        if options.dry_run and name == "too_little_memory":
            results.put(name, {"skipped": "needs a GPU"})
            continue
        with results.part(name):
            done = subprocess.run(
                [sys.executable, "-m", f"{__package__}.fallback", name, device],
                capture_output=True,
                text=True,
                timeout=50,
                env={**os.environ, "PYTHONPATH": path},
                check=False,
            )
            print(done.stdout[-1500:], done.stderr[-3000:])
            traceback = "Traceback" in done.stderr
            ok = done.returncode == expected and not traceback
            last = (done.stdout.strip() or done.stderr.strip())[-160:]
            found = {"exit_code": done.returncode, "traceback": traceback, "last": last}
            results.put(name, {"ok": ok} | found)


def capture_refused(device):
    """A number read within a capture: training goes on plainly, and the next run captures."""
    trainer = new_trainer(device, read_a_number)
    reports = sum(1 for _ in trainer.reports())
    print(f"went on: {reports} reports, mode {product.get_mode(trainer)}")
    on_gpu = device.type == "cuda"
    assert product.get_mode(trainer) == ("eager" if on_gpu else trainer.plan.mode)
    following = new_trainer(device)
    assert sum(1 for _ in following.reports()) == reports
    print(f"the next run: mode {product.get_mode(following)}")
    assert product.get_mode(following) == ("graph" if on_gpu else trainer.plan.mode)


def read_a_number(_module, _inputs, output):
    """A forward hook that no graph can hold."""
    if output.is_cuda and torch.cuda.is_current_stream_capturing():
        output.sum().item()


def too_little_memory(_device):
    """A message in one sentence, not a traceback."""
    torch.cuda.set_per_process_memory_fraction(LITTLE_MEMORY)
    size = ["--scaled", "--batch-size", "256"]
    sys.argv = ["drakegpt", "train", "TransformerLM", *size, "--device", "cuda", "--iters", "20"]
    product.main()


def memory_given_back(device):
    """Runs one after another in a process keep no memory until Python collects garbage."""
    on_gpu = device.type == "cuda"
    size = {"embedding_dim": 256, "context_length": 128} if on_gpu else {}
    alive, held = weakref.WeakSet(), []
    gc.disable()
    for _ in range(4):
        trainer = new_trainer(device, **size)
        alive.add(trainer)
        for _ in trainer.reports():
            pass
        del trainer
        if on_gpu:
            torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved() // 2**20 if on_gpu else len(alive))
    print("MiB" if on_gpu else "trainers", "held after each of four runs:", held)
    assert held[-1] <= held[0] * 1.5


def new_trainer(device, hook=None, **settings):
    """A trainer of a small model; `hook` sees what its forward passes return."""
    config = product.resolve("TransformerLM", "default", "text", SHORT | settings)
    model = product.build_model(config.model_settings(65)).to(device)
    if hook:
        model.register_forward_hook(hook)
    tokens = torch.randint(65, (20_000,)).to(torch.uint8)
    return product.Trainer(config, model, tokens[:18_000], tokens[18_000:], device)


CASES = {  # and the exit code each is to have
    "capture_refused": (capture_refused, 0),
    "memory_given_back": (memory_given_back, 0),
    "too_little_memory": (too_little_memory, 1),
}

if __name__ == "__main__":
    CASES[sys.argv[1]][0](torch.device(sys.argv[2]))
