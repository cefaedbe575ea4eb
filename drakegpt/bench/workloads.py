"""The implementations that `bench` compares, at training, evaluation and generation.

    drakegpt        this package, as its commands run it
    without replay  the same, with each step run eagerly instead of recorded and replayed
    plain PyTorch   the ladder's models with PyTorch's own linear layer, attention and
                    dropout, and its fused AdamW, run eagerly; if bfloat16 is asked for,
                    with autocast
    textbook        `models.reference` with the loops of that file
    exact window    drakegpt, generating with a window that moves by one token, as the
                    textbook's does

A piece of work is a function of a number: of training iterations, of evaluations or of
characters. All work on the same random text, as speed does not depend on the text.

Not here: other projects' programs (`peers`), `timing` and peak `memory`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from drakegpt.compute import kernels
from drakegpt.config import TrainConfig, resolve
from drakegpt.generation.context_window import ContextWindow
from drakegpt.generation.sampling import Sampling, generate
from drakegpt.models import reference
from drakegpt.models.layers import LanguageModel
from drakegpt.models.loss import next_token_loss
from drakegpt.models.registry import build_model
from drakegpt.training.optimizers import BETA1
from drakegpt.training.trainer import Trainer

Work = Callable[[int], object]
Builder = Callable[[TrainConfig, torch.device], Work]

OURS, UNREPLAYED, PLAIN = "drakegpt", "without replay", "plain PyTorch"
TEXTBOOK, EXACT = "textbook", "exact window"

VOCAB_SIZE = 65
CHARACTERS = 1_000_000
SEED = 42
# Iterations of runs that neither end nor are evaluated while their steps are timed.
ENDLESS = 10**9
# Characters of a generated text; each starts with a full context.
TEXT_LENGTH = 1000


def bench_config(model: str, size: str, shape: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return the original's recipe as an endless run whose evaluations use few batches.

    `shape`: settings other than those of the size. Raises `UsageError` for wrong ones.
    """
    few = {"eval_iters": 1 if size == "scaled" else 16}
    settings = {"iters": ENDLESS, "eval_interval": ENDLESS, **few}
    return resolve(model, size, "", settings, shape or {})


def random_text() -> tuple[Tensor, Tensor]:
    """Draw the same random characters at each call: training and validation split, uint8."""
    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(VOCAB_SIZE, (CHARACTERS,), generator=generator).to(torch.uint8)
    return tokens[: CHARACTERS * 9 // 10], tokens[CHARACTERS * 9 // 10 :]


# --- drakegpt -----------------------------------------------------------------------------------


def _our_model(config: TrainConfig, device: torch.device) -> LanguageModel:
    torch.manual_seed(SEED)
    return build_model(config.model_settings(VOCAB_SIZE)).to(device)


def _our_training(config: TrainConfig, device: torch.device, *, replay: bool = True) -> Work:
    model = _our_model(config, device)
    steps = Trainer(config, model, *random_text(), device, replay=replay).reports()
    return lambda iterations: consume(steps, iterations)


def _unreplayed_training(config: TrainConfig, device: torch.device) -> Work:
    return _our_training(config, device, replay=False)


def _our_evaluation(config: TrainConfig, device: torch.device) -> Work:
    trainer = Trainer(config, _our_model(config, device), *random_text(), device)
    next(trainer.reports())  # one step: an evaluation reports the speed of the steps before it

    def work(times: int) -> None:
        """Estimate both losses `times` times."""
        for _ in range(times):
            trainer.evaluate()

    return work


def _our_generation(
    config: TrainConfig, device: torch.device, window: ContextWindow = "auto"
) -> Work:
    model = _our_model(config, device).eval()
    prompt = random_text()[0][: config.context_length].tolist()
    texts = (generate(model, prompt, TEXT_LENGTH, Sampling(), seed, window) for seed in count(SEED))
    characters = chain.from_iterable(texts)
    return lambda length: consume(characters, length)


def _exact_generation(config: TrainConfig, device: torch.device) -> Work:
    return _our_generation(config, device, "exact")


def consume(items: Iterator[object], number: int) -> None:
    """Advance an iterator by `number` items."""
    deque(islice(items, number), maxlen=0)


# --- The textbook -------------------------------------------------------------------------------


def _textbook_model(config: TrainConfig, device: torch.device) -> reference.ReferenceLM:
    torch.manual_seed(SEED)
    return reference.ReferenceLM(config.model_settings(VOCAB_SIZE)).to(device)


def _textbook_training(config: TrainConfig, device: torch.device) -> Work:
    tokens = random_text()[0].long().to(device)
    model = _textbook_model(config, device)
    losses = reference.train(model, tokens, config.batch_size, config.base_lr)
    return lambda iterations: consume(losses, iterations)


def _textbook_evaluation(config: TrainConfig, device: torch.device) -> Work:
    model = _textbook_model(config, device)
    splits = [tokens.long().to(device) for tokens in random_text()]
    return lambda times: [
        _estimate(model, tokens, config) for _ in range(times) for tokens in splits
    ]


def _textbook_generation(config: TrainConfig, device: torch.device) -> Work:
    model = _textbook_model(config, device).eval()
    prompt = random_text()[0][None, : config.context_length].long().to(device)
    return lambda length: [
        reference.generate(model, prompt, min(TEXT_LENGTH, length - start))
        for start in range(0, length, TEXT_LENGTH)
    ]


def _estimate(model: torch.nn.Module, tokens: Tensor, config: TrainConfig) -> float:
    batches, batch_size, T = config.eval_iters, config.batch_size, config.context_length
    return reference.estimate(model, tokens, batches, batch_size, T)


# --- Plain PyTorch ------------------------------------------------------------------------------


@contextmanager
def pytorch_kernels() -> Iterator[None]:
    """Let the ladder's layers use PyTorch's own functions within a `with` statement."""
    names = ("linear", "dropout", "causal_attention")
    ours = {name: getattr(kernels, name) for name in names}
    theirs = (F.linear, F.dropout, _plain_attention)
    try:
        for name, function in zip(names, theirs, strict=True):
            setattr(kernels, name, function)
        yield
    finally:
        for name, function in ours.items():
            setattr(kernels, name, function)


def _plain_attention(query_key_value: Tensor, num_heads: int, p: float = 0.0) -> Tensor:
    """Compute PyTorch's scaled dot-product attention: (B, T, 3 C) -> (B, T, C)."""
    query, key, value = (
        part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in query_key_value.chunk(3, 2)
    )
    return kernels.fused_attention(query, key, value, p)


def _plain_training(config: TrainConfig, device: torch.device) -> Work:
    model = build_plain_model(config, device)
    return usual_loop(model, model, config, device)


def build_plain_model(config: TrainConfig, device: torch.device) -> LanguageModel:
    """Build the model for `usual_loop`, in which it has PyTorch's own kernels."""
    return _our_model(config, device)


def usual_loop(
    model: nn.Module, forward: Callable[[Tensor], Tensor], config: TrainConfig, device: torch.device
) -> Work:
    """Train as most scripts do: fused AdamW, and autocast if bfloat16 is asked for.

    `forward` returns the logits of `model`, by itself or compiled.
    """
    tokens = random_text()[0].long().to(device)
    model.train()
    optimizer = AdamW(
        model.parameters(), lr=config.base_lr, betas=(BETA1, config.adam_beta2), fused=True
    )
    half = config.dtype == "bfloat16"

    def work(iterations: int) -> None:
        """Run `iterations` training steps."""
        with pytorch_kernels():
            for _ in range(iterations):
                inputs, targets = reference.draw_windows(
                    tokens, config.batch_size, config.context_length
                )
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    loss = next_token_loss(forward(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()

    return work


def _plain_evaluation(config: TrainConfig, device: torch.device) -> Work:
    model = _our_model(config, device)
    splits = [tokens.long().to(device) for tokens in random_text()]

    def work(times: int) -> None:
        """Estimate both losses `times` times."""
        with pytorch_kernels():
            for _ in range(times):
                for tokens in splits:
                    _estimate(model, tokens, config)

    return work


BUILDERS: dict[str, dict[str, Builder]] = {
    OURS: {
        "training": _our_training, "evaluation": _our_evaluation, "generation": _our_generation
    },
    UNREPLAYED: {"training": _unreplayed_training},
    TEXTBOOK: {
        "training": _textbook_training,
        "evaluation": _textbook_evaluation,
        "generation": _textbook_generation,
    },
    PLAIN: {"training": _plain_training, "evaluation": _plain_evaluation},
    EXACT: {"generation": _exact_generation},
}  # fmt: skip
