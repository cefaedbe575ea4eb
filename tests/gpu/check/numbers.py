"""Numbers on the GPU beside the CPU's, recorded steps beside plain ones, and dropout."""

import zlib
from contextlib import nullcontext

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import product
from .results import rounded
from .workbench import MIDDLE, TOY, Workbench, difference, losses

CPU = torch.device("cpu")
COMMON = {
    "iters": 50,
    "eval_interval": 50,
    "eval_iters": 2,
    "dropout": 0.0,
    "schedule": "constant",
    "max_lr": 1e-3,
    "compile": False,
}
# How far losses may be from the CPU's in float32: the first ten, and all.
TOLERANCES = {"float32": (1e-3, 0.02), "bfloat16": (0.03, 0.1)}


def numbers(options, results):
    """Losses, the random state and what dropout drops."""
    bench = Workbench(options)
    for name, shape in (("default", {}), ("middle", TOY if bench.dry_run else MIDDLE)):
        with results.part(f"losses_{name}"):
            results.put(f"losses_{name}", rounded(_compare_losses(bench, shape), 2))
    with results.part("scaled_three_steps"):
        settings = COMMON | {"iters": 3, "eval_interval": 3, "eval_iters": 1} | bench.shape()
        there, here = (
            losses(bench.trainer(device, dtype="float32", **settings))
            for device in (bench.device, CPU)
        )
        found = {"ok": difference(there, here)["all"] < 2e-3, "cpu": here, "device": there}
        results.put("scaled_three_steps", rounded(found, 6))
    with results.part("dropout"):
        results.put("dropout", rounded(_compare_dropout(bench), 3))
    if bench.on_gpu:
        _check_attention(results)


def _compare_losses(bench, shape):
    """Losses in each number format, recorded and plain, beside the CPU's in float32."""
    settings = COMMON | shape
    exact = losses(bench.trainer(CPU, "eager", dtype="float32", **settings))
    gaps, ok = {}, True
    for dtype, (at_first, over_all) in TOLERANCES.items():
        for mode in ("eager", bench.recorded):
            trainer = bench.trainer(mode=mode, dtype=dtype, **settings)
            gap = difference(losses(trainer), exact)
            ok &= gap["first_10"] < at_first and gap["all"] < over_all
            ok &= product.get_mode(trainer) == mode  # it was not given up on the way
            gaps[f"{dtype} {mode}"] = gap
    return {"ok": ok, "from_to": [exact[0], exact[-1]], "against_cpu": gaps}


def _compare_dropout(bench):
    """Recorded steps draw as plain ones do; a GPU adds in no fixed order, so these differ too."""
    settings = COMMON | bench.shape() | {"dropout": 0.2, "iters": 30, "eval_interval": 30}
    curves, states = [], []
    for mode in (bench.recorded, "eager", "eager"):
        curves.append(losses(bench.trainer(mode=mode, **settings)))
        states.append(_random_state(bench))
    apart, noise = difference(*curves[:2]), difference(*curves[1:])
    ok = states[0] == states[1] and apart["first_10"] < max(0.02, 3 * noise["first_10"])
    return {"ok": ok, "recorded_against_plain": apart, "plain_twice": noise, "state": states}


def _random_state(bench):
    """How many numbers a GPU has drawn, or a number that stands for the CPU's state."""
    if bench.on_gpu:
        return torch.cuda.get_rng_state()[8:].view(torch.int64).item()
    return zlib.crc32(torch.get_rng_state().numpy())


def _check_attention(results):
    """Dropout within attention, by each of PyTorch's kernels and within a graph."""
    queries = torch.zeros(16, 6, 256, 64, device="cuda", dtype=torch.bfloat16)
    ones = torch.ones_like(queries)
    for p in (0.2, 0.1):
        with results.part(f"attention_dropout_{p}"):
            found = {"mean_of_one": _means(queries, ones, p)}
            default = found["mean_of_one"]["default"]
            found["ok"] = isinstance(default, float) and abs(default - 1) < 0.004
            found["kernel"] = _chosen(queries, ones, p)
            found["kernel_without"] = _chosen(queries, ones, 0.0)
            results.put(f"attention_dropout_{p}", rounded(found, 5))
    with results.part("replays_differ"):
        same = _equal_replays(queries, ones)
        found = {"attention": not same[0], "dropout": not same[1]}
        results.put("replays_differ", {"ok": not any(same)} | found)


def _chosen(queries, values, p):
    """The kernel that PyTorch takes of its own accord."""
    number = torch._fused_sdp_choice(queries, queries, values, None, p, True)
    return {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}.get(number, number)


def _means(queries, ones, p):
    """What attention over ones becomes with dropout, on average: 1, if the mean is kept."""
    means = {}
    for backend in (None, "FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"):
        chosen = sdpa_kernel([getattr(SDPBackend, backend)]) if backend else nullcontext()
        name = backend.split("_")[0].lower() if backend else "default"
        try:
            with chosen:
                outputs = [_attend(queries, ones, p)[:, :, 64:].float().mean() for _ in range(20)]
                means[name] = torch.stack(outputs).mean().item()
        except RuntimeError as error:  # not every GPU has every kernel
            means[name] = str(error).splitlines()[0][:80]
    return means


def _attend(queries, values, p):
    return F.scaled_dot_product_attention(queries, queries, values, dropout_p=p, is_causal=True)


def _equal_replays(queries, ones):
    """Whether two replays of a graph drop the same, in attention and elsewhere."""
    results = []

    def work():
        results[:] = [_attend(queries, ones, 0.2), F.dropout(ones, 0.2)]

    with product.warm_up_stream(ones.device):
        work()
    graph = product.capture(work)
    seen = []
    for _ in range(2):
        graph.replay()
        seen.append([result.clone() for result in results])
    return [torch.equal(one, other) for one, other in zip(*seen, strict=True)]
