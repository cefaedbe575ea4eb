"""Checks of generated texts: the likeliest tokens are the textbook's, and a seed gives one text."""

import torch

from drakegpt.bench.doctor.arithmetic import CPU, advise, keep_random_state
from drakegpt.bench.doctor.checks import Finding
from drakegpt.bench.doctor.steps import VOCAB_SIZE, build_checked_model, choose_config
from drakegpt.bench.doctor.textbook import Textbook, has_textbook
from drakegpt.compute.device import set_thread_count
from drakegpt.errors import RunError
from drakegpt.generation.sampling import Sampling, generate
from drakegpt.models.layers import LanguageModel

PROMPT = [3, 14, 15, 9]
LENGTH = 24  # tokens: three times the context of the default size, so that the window moves
SEEDS = (1, 2)
# Logits that are closer than this may change places by rounding.
TIE = 1e-4


def check_text(model: str, device: torch.device) -> Finding:
    """Compare a device's texts: greedy ones with the textbook's, sampled ones with each other.

    Those of another device than the CPU are compared with the CPU's, too.
    """
    try:
        return _compare_texts(model, device)
    except RunError:  # its advice, a lower learning rate, is for a trained model
        return _fail("the scores of a next token are not finite numbers.", device)


def _compare_texts(model: str, device: torch.device) -> Finding:
    training = choose_config(model)
    config = training.model_settings(VOCAB_SIZE)
    set_thread_count(config)
    with keep_random_state(CPU):
        here = build_checked_model(training).eval()
    if has_textbook(model):
        textbook = Textbook(config)
        textbook.load(here.state_dict())
        greedy = _generate(here.to(device), Sampling(temperature=0), SEEDS[0])
        if place := _find_unlikely(textbook, greedy):
            return _fail(
                f"token {place} of a text is not the likeliest one of the textbook's model.", device
            )
    texts = [_generate(here.to(device), Sampling(), seed) for seed in SEEDS]
    again = [_generate(here, Sampling(), seed) for seed in SEEDS]
    if texts != again:
        return _fail("one seed gives two different texts.", device)
    if texts[0] == texts[1]:
        return _fail("two seeds give the same text.", device)
    if device.type != "cpu":
        on_cpu = [_generate(here.to("cpu"), Sampling(), seed) for seed in SEEDS]
        # Two random numbers so close that rounding decides: once in thousands of texts.
        if all(text != other for text, other in zip(texts, on_cpu, strict=True)):
            return _fail(f"a seed gives another text than on the CPU on {device.type}.", device)
    return Finding("text the same", {"tokens": LENGTH * (1 + len(SEEDS))})


def _generate(model: LanguageModel, sampling: Sampling, seed: int) -> list[int]:
    return list(generate(model, PROMPT, LENGTH, sampling, seed, window="exact"))


def _find_unlikely(textbook: Textbook, text: list[int]) -> int:
    """Return the number of the first token that the textbook would not take, else 0."""
    for number in range(len(text)):
        logits = textbook.compute_next([*PROMPT, *text[:number]])
        if not logits[text[number]] >= logits.max() - TIE:
            return number + 1
    return 0


def _fail(problem: str, device: torch.device) -> Finding:
    return Finding("text differs", {}, "failed", problem, advise(device))
