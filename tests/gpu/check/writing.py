"""How fast text is written and scored, and weights of few bits."""

import math
import time

import torch

from . import product
from .results import rounded
from .workbench import ENDLESS, Workbench

FEW_BITS = {"bits": "1.58"}


def write(options, results):
    """One text and many, evaluation, training with few bits, packed weights."""
    bench = Workbench(options)
    config = bench.config(**bench.shape())
    _time_writing(bench, results, "float32", bench.model(config).to(bench.device).eval())
    with results.part("evaluation"):
        results.put("evaluation", rounded(_time_evaluation(bench), 6))
    with results.part("few_bits_training"):
        shape = {**bench.shape(), **FEW_BITS}
        results.put("few_bits_training", bench.time_steps(3 if bench.dry_run else 40, **shape)[0])
    with results.part("packed_is_exact"):
        found, packed = _compare_packed(bench)
        results.put("packed_is_exact", rounded(found, 3))
        _time_writing(bench, results, "packed", packed)


def _time_writing(bench, results, name, model):
    """Characters per second of whole texts, in which the window moves many times.

    On a GPU they are written ahead of what is asked for, so that no part can be timed.
    """
    length = model.config.context_length
    prompt = bench.tokens[:length].tolist()
    for texts in (1, 32):
        with results.part(f"{name}_{texts}"):
            for count in (length, 8 * length):  # the first is not timed: libraries get ready
                started, seeds = time.perf_counter(), list(range(texts))
                written = product.generate_batch(model, prompt, count, product.Sampling(), seeds)
                found = sum(len(tokens) for tokens in written)
                rate = found / (time.perf_counter() - started)
            ok = found == 8 * length * texts
            results.put(f"{name}_{texts}", {"ok": ok, "characters_per_s": round(rate)})


def _time_evaluation(bench):
    """Estimates of both losses as a run makes them, and the whole text in two number formats."""
    bench.clean()
    endless = {"iters": ENDLESS, "eval_interval": ENDLESS, "compile": False}
    batches = 2 if bench.dry_run else 200
    trainer = bench.trainer(**bench.shape(), **endless, eval_iters=batches)
    next(trainer.reports())
    found = {"batches": 2 * batches, "seconds": bench.best_of_rounds(trainer.evaluate, 1)}
    for dtype in (torch.float32, torch.bfloat16):
        started = time.perf_counter()
        name = str(dtype).removeprefix("torch.")
        found[f"whole_text_{name}_loss"] = _score_text(bench, trainer, dtype)
        found[f"whole_text_{name}_s"] = time.perf_counter() - started
    if bench.on_gpu:
        found["peak_MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
    apart = abs(found["whole_text_float32_loss"] - found["whole_text_bfloat16_loss"])
    return {"ok": apart < 0.02} | found


def _score_text(bench, trainer, dtype):
    tokens = bench.tokens[: 3000 if bench.dry_run else None]
    length = trainer.config.context_length
    at_once = max(1, product.choose_batch_tokens(bench.device, trainer.model.config) // length)
    windows = product.sequential_windows(tokens, length, at_once)
    half = dtype == torch.bfloat16
    with torch.autocast(bench.device.type, torch.bfloat16, enabled=half):
        return product.mean_loss(trainer.model, windows, bench.device)


@torch.no_grad()
def _compare_packed(bench):
    """Logits of a model of few bits, rounded anew and packed, here and there.

    Returns what was found, and the packed model on the device.
    """
    config = bench.config(**bench.shape(), **FEW_BITS)
    model = bench.model(config).eval()
    tokens = bench.tokens[: config.context_length].long()[None]

    def logits(device):
        return model.to(device)(tokens.to(device)).cpu()

    rounded_here, rounded_there = logits("cpu"), logits(bench.device)
    model = product.pack_(model.cpu())
    packed_here, packed_there = logits("cpu"), logits(bench.device)
    found = {
        "packed_against_rounded": (packed_there - rounded_there).abs().max().item(),
        "packed_against_cpu": (packed_there - packed_here).abs().max().item(),
        "packed_against_rounded_on_cpu": (packed_here - rounded_here).abs().max().item(),
    }
    ok = all(math.isfinite(gap) and gap < 0.05 for gap in found.values())
    return {"ok": ok} | found, model
