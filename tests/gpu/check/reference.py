"""Training the same model in plain PyTorch, written the usual way and as fast as it gets.

Nothing here is drakegpt's: what its steps are compared with stands on its own.
"""

import importlib.util
import math
import time

import torch
from torch import nn

from .plain_gpt import GPT
from .results import rounded
from .workbench import Workbench

BETAS = (0.9, 0.95)
WARM_UP = 5


class Windows:
    """Batches of random windows, inputs and targets (B, T)."""

    def __init__(self, bench, config):
        self.tokens, self.device = bench.tokens.long(), bench.device
        self.batch, self.length = config.batch_size, config.context_length
        self.there = self.tokens.to(self.device)
        self.steps = torch.arange(self.length + 1, device=self.device)

    def draw(self):
        """As most scripts draw them: one by one, on the CPU."""
        starts = torch.randint(len(self.tokens) - self.length, (self.batch,))
        both = torch.stack([self.tokens[start : start + self.length + 1] for start in starts])
        if self.device.type == "cuda":
            both = both.pin_memory().to(self.device, non_blocking=True)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def cut(self):
        """Cut out of the text on the device."""
        last = len(self.tokens) - self.length
        starts = torch.randint(last, (self.batch, 1), device=self.device)
        both = self.there[starts + self.steps]
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()


def reference(options, results):
    """Four loops over the same model, and GPT-2 of `transformers` where that is installed."""
    bench = Workbench(options)
    config = bench.config(**{**bench.shape(), "dropout": 0.2})
    windows = Windows(bench, config)

    def new_model():
        return GPT(config, bench.vocab_size).to(bench.device)

    loops = {
        "usual_eager": lambda: usual_step(new_model(), windows),
        "fast_graph": lambda: fast_step(new_model(), windows),
        "usual_compiled": lambda: usual_step(new_model(), windows, compiled=bench.on_gpu),
        "fast_compiled_graph": lambda: fast_step(new_model(), windows, compiled=bench.on_gpu),
    }
    if importlib.util.find_spec("transformers") is not None:
        loops["transformers_gpt2"] = lambda: usual_step(_gpt2(bench, config), windows)
    for name, make in loops.items():
        with results.part(name):
            bench.clean()
            results.put(name, _timed(bench, config, make))


def _timed(bench, config, make):
    started = time.perf_counter()
    step = make()
    for _ in range(WARM_UP):
        step()
    bench.synchronize()
    ready = time.perf_counter() - started
    seconds = bench.best_of_rounds(step, 3 if bench.dry_run else 100)
    found = bench.figures(config, seconds)
    loss = step().item()
    return {"ok": math.isfinite(loss)} | found | rounded({"ready_s": ready, "loss": loss})


def usual_step(model, windows, compiled=False):
    """A training step as most scripts have it."""
    on_gpu = windows.device.type == "cuda"
    call = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=BETAS, fused=True)

    def step():
        inputs, targets = windows.draw()
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=on_gpu):
            loss = call(inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def fast_step(model, windows, compiled=False):
    """Weights in bfloat16 beside their float32 masters, and the whole step as one graph."""
    on_gpu = windows.device.type == "cuda"
    masters, working, gradients, views = _flattened(model, torch.bfloat16 if on_gpu else None)
    rate = torch.tensor(1e-3, device=windows.device)
    adam = torch.optim.AdamW([masters], lr=rate, betas=BETAS, fused=True, capturable=on_gpu)
    call = torch.compile(model) if compiled else model
    weights = list(model.parameters())
    inputs, targets = windows.cut()

    def body():
        loss = call(inputs, targets)
        torch._foreach_copy_(views, list(torch.autograd.grad(loss, weights)))
        masters.grad.copy_(gradients)
        adam.step()
        working.copy_(masters.detach())
        return loss.detach()

    repeat = _recorded(body) if on_gpu else body

    def step():
        for place, drawn in zip((inputs, targets), windows.cut(), strict=True):
            place.copy_(drawn)
        return repeat()

    return step


def _flattened(model, dtype):
    """Lay a model's weights side by side, in another number format.

    Returns the float32 masters, the weights, room for their gradients, and that room
    as views, one for each parameter.
    """
    parameters = list(model.parameters())
    masters = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    masters.grad = torch.zeros_like(masters)
    working = masters.detach().to(dtype, copy=True)
    gradients, views, place = torch.zeros_like(working), [], 0
    for parameter in parameters:
        part = slice(place, place + parameter.numel())
        views.append(gradients[part].view_as(parameter))
        parameter.data, place = working[part].view_as(parameter), part.stop
    return masters, working, gradients, views


def _recorded(body):
    """`body` as a CUDA graph; returns what replays it, whose result stays in its place."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = body()

    def replay():
        graph.replay()
        return loss

    return replay


class _WithLoss(nn.Module):
    """A model of `transformers`, called as the others are."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs, _targets):
        """It shifts its labels itself."""
        return self.model(input_ids=inputs, labels=inputs).loss


def _gpt2(bench, config):
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = GPT2Config(
        vocab_size=bench.vocab_size,
        n_positions=config.context_length,
        n_embd=config.embedding_dim,
        n_head=config.num_heads,
        n_layer=config.num_layers,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        attn_implementation="sdpa",
        use_cache=False,
    )
    return _WithLoss(GPT2LMHeadModel(settings)).to(bench.device).train()
