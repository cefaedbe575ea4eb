"""drakegpt as a user starts it: whole runs, and one that is killed and taken up again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from .results import rounded
from .workbench import SCALED, TOY

# A scaled run on tiny Shakespeare is below this validation loss after 2,000 iterations, in nats.
LEARNT = 1.75
WAIT = 40  # seconds at most for a run to come to the place where it is killed


class Program:
    """The program with a home of its own, and the text in it."""

    def __init__(self, options, name):
        self.home = (options.folder / "home" / name).resolve()
        shutil.rmtree(self.home, ignore_errors=True)
        self.environment = {**os.environ, "DRAKEGPT_HOME": str(self.home)}
        self.dry_run, self.on_text = options.dry_run, bool(options.text)
        self.device = "cpu" if options.dry_run else "cuda"
        text = [Path(options.text).resolve(), "--name", "text"] if options.text else ["sample"]
        self.run("data", "fetch", *text)

    def command(self, *arguments):
        """To start it with."""
        return [sys.executable, "-m", "drakegpt", *map(str, arguments)]

    def run(self, *arguments):
        """What it wrote, and the seconds it took; raises `RuntimeError` if it failed."""
        started = time.perf_counter()
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        print(*arguments, f"-> {done.returncode} after {seconds:.1f} s\n", done.stderr[-2500:])
        if done.returncode:
            reason = done.stderr.strip()[-300:]
            raise RuntimeError(f"drakegpt {arguments[0]} ended with {done.returncode}: {reason}")
        return done.stdout, seconds

    def size(self):
        """Options for a scaled model, or a toy."""
        toy = [o for name, value in TOY.items() for o in (f"--{name.replace('_', '-')}", value)]
        return toy if self.dry_run else ["--scaled"]


def train(options, results):
    """The scaled model, 2,000 iterations; what 10,000 would take."""
    with results.part("train_2000"):
        found = _whole_run(options, "train_2000", 60 if options.dry_run else 2000)
        seconds = found["ms_per_iteration"] / 1e3 * 10_000
        seconds += 20 * found["evaluation_s"] + found["around_s"]
        results.put("train_2000", rounded(found | {"extrapolated_10000_s": seconds}))


def long(options, results):
    """The 10,000 iterations themselves."""
    with results.part("train_10000"):
        found = _whole_run(options, "train_10000", 100 if options.dry_run else 10_000)
        results.put("train_10000", rounded(found))


def _whole_run(options, name, iterations):
    program = Program(options, name)
    how = ["--device", program.device, "--iters", iterations]
    how += ["--eval-iters", 2 if program.dry_run else 200]
    output, wall = program.run(
        "train", "TransformerLM", *program.size(), *how, "--name", name, "--json"
    )
    run = json.loads(output)
    shape = TOY if program.dry_run else SCALED
    step = shape["batch_size"] * shape["context_length"] / run["tokens_per_second"]
    evaluations = run["evaluations"]
    limit = LEARNT if program.on_text and not program.dry_run else evaluations[0]["val_loss"]
    return {
        "ok": run["val_loss"] < limit,
        "wall_s": wall,
        "trained_s": run["seconds"],
        "ms_per_iteration": step * 1e3,
        "evaluation_s": (run["seconds"] - step * iterations) / len(evaluations),
        "around_s": wall - run["seconds"],
        "val_loss": run["val_loss"],
        "train_loss": run["train_loss"],
        "best_estimate": min(e["val_loss"] for e in evaluations),
        "tokens_per_s": run["tokens_per_second"],
        "first_tokens_per_s": evaluations[0]["tokens_per_second"],
    }


@dataclass(frozen=True)
class Plan:
    """Runs of one recipe: a whole one, another to tell noise by, and one that is killed."""

    kind: str
    size: list
    iterations: int
    again: bool

    @property
    def interval(self):
        """Iterations between two checkpoints."""
        return self.iterations // 8

    def arguments(self, device, run):
        """For `drakegpt`, to train a run of that name."""
        often = ["--eval-interval", self.interval, "--save-interval", self.interval]
        how = ["--device", device, "--iters", self.iterations, "--eval-iters", 2, "--quiet"]
        return ["train", "TransformerLM", *self.size, *often, *how, "--name", self.name(run)]

    def name(self, run):
        """Of one of the runs: whole, again, cut."""
        return f"{self.kind}_{run}"


def resume(options, results):
    """A run that is killed and taken up again, beside runs that were not."""
    program = Program(options, "resume")
    default = 800 if program.dry_run else 2000
    plans = [
        Plan("scaled", program.size(), default if program.dry_run else 240, again=True),
        Plan("default", [], default, again=False),
    ]
    for plan in plans:
        with results.part(f"resume_{plan.kind}"):
            results.put(f"resume_{plan.kind}", rounded(_compare_runs(program, plan), 3))


def _compare_runs(program, plan):
    for run in ("whole", "again") if plan.again else ("whole",):
        program.run(*plan.arguments(program.device, run))
    code, at = _train_and_kill(program, plan)
    program.run("train", "--resume", plan.name("cut"), "--quiet")
    whole, cut = End(program, plan.name("whole")), End(program, plan.name("cut"))
    gap = cut.difference(whole)
    found = {"killed_with": code, "at": at, "resumed_against_whole": gap}
    noise = 0.0
    if plan.again:  # a GPU adds in no fixed order, so that two whole runs differ as well
        found["whole_twice"] = End(program, plan.name("again")).difference(whole)
        noise = found["whole_twice"]["val_losses"]
    ok = code == -signal.SIGKILL and gap["random_state"] and cut.iteration == plan.iterations
    return {"ok": ok and gap["val_losses"] <= max(0.02, 3 * noise)} | found


def _train_and_kill(program, plan):
    """Kill a run after its second checkpoint; its exit code, and the last checkpoint then."""
    command = program.command(*plan.arguments(program.device, "cut"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=program.environment, **quiet)
    checkpoints = program.home / "runs" / plan.name("cut") / "checkpoints"
    until, at = time.monotonic() + WAIT, 0
    while process.poll() is None and at < 2 * plan.interval and time.monotonic() < until:
        at = max((int(f.name) for f in checkpoints.glob("*") if f.name.isdigit()), default=0)
        time.sleep(0.002)
    process.kill()
    return process.wait(), at


class End:
    """How a run ended: its weights, validation losses and random state."""

    def __init__(self, program, name):
        folder = program.home / "runs" / name / "checkpoints"
        self.iteration = max(int(file.name) for file in folder.glob("*") if file.name.isdigit())
        last = folder / f"{self.iteration:08}"
        state = torch.load(last / "state.pt", weights_only=True)
        self.weights = load_file(last / "weights.safetensors")
        self.losses = [evaluation["val_loss"] for evaluation in state["evaluations"]]
        self.random = state["random"]["cpu" if program.dry_run else "cuda"]

    def difference(self, other):
        """The largest differences, and whether chance would go on alike."""
        weights = max((w - other.weights[k]).abs().max().item() for k, w in self.weights.items())
        losses = max(abs(a - b) for a, b in zip(self.losses, other.losses, strict=True))
        same = torch.equal(self.random, other.random)
        return {"weights": weights, "val_losses": losses, "random_state": same}
