"""A device, a text, and trainers on it."""

import gc
import math
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

import drakegpt

from . import product
from .results import rounded

# Operations per second in bfloat16 that makers state, by a part of the GPU's name.
PEAKS = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}
SCALED = {
    "context_length": 256,
    "embedding_dim": 384,
    "num_heads": 6,
    "num_layers": 6,
    "batch_size": 64,
}
MIDDLE = {
    "context_length": 64,
    "embedding_dim": 128,
    "num_heads": 4,
    "num_layers": 4,
    "batch_size": 12,
}
TOY = {
    "context_length": 16,
    "embedding_dim": 32,
    "num_heads": 4,
    "num_layers": 2,
    "batch_size": 8,
}
ENDLESS = 10**9
FIRST_STEPS = 6  # in which a step is recorded, and compiled
ROUNDS = 3  # of which the quickest counts


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    text: str  # a file; the sample of songs if empty
    dry_run: bool  # on the CPU, at toy sizes
    folder: Path  # for tables, logs and runs


class Workbench:
    """What sections that look inside the program work with."""

    def __init__(self, options):
        self.dry_run = options.dry_run
        if options.dry_run:
            torch.set_num_threads(1)
        self.device = product.choose_device("cpu" if options.dry_run else "cuda")
        self.on_gpu = self.device.type == "cuda"
        self.recorded = "graph" if self.on_gpu else "replay"  # the mode of steps that are recorded
        sample = Path(drakegpt.__file__).parent / "data" / "sample_lyrics.csv"
        text = Path(options.text or sample).read_text(encoding="utf-8")
        codes = {letter: code for code, letter in enumerate(sorted(set(text)))}
        self.tokens = torch.tensor([codes[letter] for letter in text], dtype=torch.uint8)
        self.vocab_size = len(codes)

    def shape(self):
        """Settings of the largest model that is tried, at its own size."""
        return {**TOY} if self.dry_run else {"size": "scaled"}

    def config(self, size="default", **settings):
        """The configuration of a TransformerLM."""
        return product.resolve("TransformerLM", size, "text", settings)

    def model(self, config):
        """A new model, drawn from the configuration's seed, on the CPU."""
        torch.manual_seed(config.seed)
        return product.build_model(config.model_settings(self.vocab_size))

    def trainer(self, device=None, mode=None, **settings):
        """A trainer of a new model, with a mode that is not the plan's if one is given."""
        config, device = self.config(**settings), device or self.device
        product.set_thread_count(config.model_settings(self.vocab_size))
        cut = len(self.tokens) * 9 // 10
        train, val = self.tokens[:cut], self.tokens[cut:]
        trainer = product.Trainer(config, self.model(config).to(device), train, val, device)
        if mode:
            product.set_mode(trainer, mode)
        return trainer

    def synchronize(self):
        """Wait for the GPU."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def clean(self):
        """Give back the GPU's memory, and count its peak anew."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def figures(self, config, seconds):
        """What an iteration of so many seconds amounts to."""
        operations = product.count_flops(config)
        tokens = config.batch_size * config.context_length
        found = {
            "ms": seconds * 1e3,
            "tokens_per_s": round(tokens / seconds),
            "tflops": operations / seconds / 1e12,
        }
        if self.on_gpu:
            gpu = torch.cuda.get_device_name()
            if peak := next((rate for name, rate in PEAKS.items() if name in gpu), None):
                found["share_of_peak"] = operations / seconds / peak
            found["peak_MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
            found["reserved_MiB"] = round(torch.cuda.max_memory_reserved() / 2**20)
        return rounded(found)

    def best_of_rounds(self, work, times):
        """Seconds of one of `times` calls of `work`, in the quickest of some rounds."""
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for _ in range(times):
                work()
            self.synchronize()
            seconds.append((time.perf_counter() - started) / times)
        return min(seconds)

    def time_steps(self, times, **settings):
        """Time the steps of a trainer that goes on for ever.

        Returns what was found, and the trainer's reports to go on with.
        """
        self.clean()
        endless = {"iters": ENDLESS, "eval_interval": ENDLESS, "compile": False}
        trainer = self.trainer(**endless | settings)
        reports = trainer.reports()
        started = time.perf_counter()
        for _ in islice(reports, FIRST_STEPS):
            pass
        self.synchronize()
        first = time.perf_counter() - started
        found = self.figures(trainer.config, self.best_of_rounds(lambda: next(reports), times))
        loss = next(reports).loss.item()
        found |= rounded({"first_steps_s": first, "loss": loss})
        found |= {"mode": product.get_mode(trainer), "compiled": product.is_compiled(trainer)}
        found["ok"] = math.isfinite(loss) and found["compiled"] is not False
        return found, reports


def losses(trainer):
    """The loss of each step to the end."""
    return [r.loss.item() for r in trainer.reports() if isinstance(r, product.Step)]


def difference(curve, other):
    """The largest difference of two curves, at first and over all."""
    gaps = [abs(a - b) for a, b in zip(curve, other, strict=True)]
    return {"first_10": max(gaps[:10]), "all": max(gaps)}
