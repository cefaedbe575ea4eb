"""Who `bench` measures, each at its three kinds of work: training, evaluation, generation.

    drakegpt  this package, through what its commands use
    textbook  `models.textbook`, its loops as they stand there
    plain     the ladder's models with PyTorch's own linear layer, attention and
              dropout, and its fused AdamW, run as written
    exact     drakegpt writing with a window that moves by one, as the textbook's

A piece of work is a function of a number: it does so many training iterations,
so many evaluations or so many characters. All work on the same random text, since
the speed of a model does not depend on what it reads.

Not here: clocks. `bench` takes the time, `memory` the peak of memory.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count, islice

import torch
from torch import Tensor
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
from drakegpt.training.optimizers import BETAS
from drakegpt.training.trainer import Trainer

Work = Callable[[int], object]
Builder = Callable[[TrainConfig, torch.device], Work]

VOCAB_SIZE = 65
CHARACTERS = 1_000_000
SEED = 42
# No run ends and none is evaluated while steps are measured.
ENDLESS = 10**9
# Texts of at most so many characters are written, one after the other, each at a full context.
TEXT_LENGTH = 1000


def bench_config(model: str, size: str) -> TrainConfig:
    """The original's recipe without an end; an evaluation takes a share of its batches."""
    settings = {"iters": ENDLESS, "eval_interval": ENDLESS, "eval_iters": 16}
    return resolve(model, size, "", settings | ({"eval_iters": 1} if size == "scaled" else {}))


def random_text() -> tuple[Tensor, Tensor]:
    """Random characters, the same at each call, split into training and validation: uint8."""
    chance = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(VOCAB_SIZE, (CHARACTERS,), generator=chance).to(torch.uint8)
    return tokens[: CHARACTERS * 9 // 10], tokens[CHARACTERS * 9 // 10 :]


# --- drakegpt -----------------------------------------------------------------------------------


def _our_model(config: TrainConfig, device: torch.device) -> LanguageModel:
    torch.manual_seed(SEED)
    return build_model(config.model_settings(VOCAB_SIZE)).to(device)


def _our_training(config: TrainConfig, device: torch.device) -> Work:
    steps = Trainer(config, _our_model(config, device), *random_text(), device).reports()
    return lambda iterations: take(steps, iterations)


def _our_evaluation(config: TrainConfig, device: torch.device) -> Work:
    trainer = Trainer(config, _our_model(config, device), *random_text(), device)
    next(trainer.reports())  # one step: an evaluation tells the speed of those before it

    def work(times: int) -> None:
        """Estimate both losses so many times."""
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
    return lambda length: take(characters, length)


def _exact_generation(config: TrainConfig, device: torch.device) -> Work:
    return _our_generation(config, device, "exact")


def take(things: Iterator[object], number: int) -> None:
    """Go through so many things, and keep none."""
    deque(islice(things, number), maxlen=0)


# --- The textbook -------------------------------------------------------------------------------


def _textbook_model(config: TrainConfig, device: torch.device) -> reference.ReferenceLM:
    torch.manual_seed(SEED)
    return reference.ReferenceLM(config.model_settings(VOCAB_SIZE)).to(device)


def _textbook_training(config: TrainConfig, device: torch.device) -> Work:
    tokens = random_text()[0].long().to(device)
    model = _textbook_model(config, device)
    losses = reference.train(model, tokens, config.batch_size, config.base_lr)
    return lambda iterations: take(losses, iterations)


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


# --- Plain --------------------------------------------------------------------------------------


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Let the ladder's layers compute by PyTorch's own functions in a `with` statement."""
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
    """(B, T, 3 C) -> (B, T, C) by PyTorch's scaled dot-product attention, cut as is usual."""
    query, key, value = (
        part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in query_key_value.chunk(3, 2)
    )
    return kernels.fused_attention(query, key, value, p)


def _plain_training(config: TrainConfig, device: torch.device) -> Work:
    tokens = random_text()[0].long().to(device)
    model = _our_model(config, device).train()
    optimizer = AdamW(model.parameters(), lr=config.base_lr, betas=BETAS, fused=True)

    def work(iterations: int) -> None:
        """Go so many steps."""
        with plain_arithmetic():
            for _ in range(iterations):
                inputs, targets = reference.draw_windows(
                    tokens, config.batch_size, config.context_length
                )
                loss = next_token_loss(model(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()

    return work


def _plain_evaluation(config: TrainConfig, device: torch.device) -> Work:
    model = _our_model(config, device)
    splits = [tokens.long().to(device) for tokens in random_text()]

    def work(times: int) -> None:
        """Estimate both losses so many times."""
        with plain_arithmetic():
            for _ in range(times):
                for tokens in splits:
                    _estimate(model, tokens, config)

    return work


BUILDERS: dict[str, dict[str, Builder]] = {
    "drakegpt": {
        "training": _our_training, "evaluation": _our_evaluation, "generation": _our_generation
    },
    "textbook": {
        "training": _textbook_training,
        "evaluation": _textbook_evaluation,
        "generation": _textbook_generation,
    },
    "plain": {"training": _plain_training, "evaluation": _plain_evaluation},
    "exact": {"generation": _exact_generation},
}  # fmt: skip
