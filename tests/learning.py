"""Training in tests: runs and trainers on a small text, and what losses become."""

from contextlib import contextmanager

import pytest
import torch

from drakegpt.config import resolve
from drakegpt.data.prepare import prepare_dataset
from drakegpt.models.loss import next_token_loss
from drakegpt.models.registry import build_model
from drakegpt.runs.create import create_run
from drakegpt.runs.session import TrainingSession
from drakegpt.training.reports import Step
from drakegpt.training.trainer import Trainer

CPU = torch.device("cpu")
WORDS = "the quick brown fox jumps over the lazy dog and runs far away from home".split()
SHORT = {"iters": 4, "eval_interval": 2, "eval_iters": 1}


@contextmanager
def at_home(folder):
    """A home for what is made once, whenever that is: a test may have its own by then."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRAKEGPT_HOME", str(folder / "home"))
        yield
    torch.set_num_threads(before)


def small_text():
    """A small text with some structure: the order of its words is not random."""
    return "\n".join(" ".join(WORDS[i % 5 : i % 5 + 3 + i % 7]) for i in range(400)) + "\n"


def prepare(text, name="small", **how):
    given = {"source": "test", "provenance": "test", "source_sha256": "0" * 64}
    return prepare_dataset(text, name=name, **(given | how))


def train(prepared, model="TransformerLM", name=None, **settings):
    """A run trained to its end: of four steps, unless `settings` say otherwise."""
    run = create_run(resolve(model, "default", prepared.name, SHORT | settings), prepared, name)
    record(run)
    return run


def record(run, *, resume=False, until=None, save=False):
    """Train to the end, or leave after step `until`: as a crash would, or once that is saved.

    Returns the session, which has the trainer.
    """
    with TrainingSession(run, resume=resume) as session:
        for report in session.reports():
            if isinstance(report, Step) and report.iteration == until:
                if save:
                    session.save()
                break
    return session


def new_trainer(prepared, model="TransformerLM", device=CPU, *, replay=True, **settings):
    """A trainer of a new model of default size, with `settings` in place of the recipe's."""
    config = resolve(model, "default", prepared.name, settings)
    torch.manual_seed(config.seed)
    built = build_model(config.model_settings(prepared.tokenizer.vocab_size)).to(device)
    splits = prepared.split("train"), prepared.split("val")
    return Trainer(config, built, *splits, device, replay=replay)


def losses(trainer):
    """The loss of each step to the end."""
    return [r.loss.item() for r in trainer.reports() if isinstance(r, Step)]


def losses_on_one_batch(model):
    """The losses of sixty steps on the same random windows."""
    config = model.config
    inputs, targets = torch.randint(config.vocab_size, (2, 8, config.context_length))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    result = []
    for _ in range(60):
        loss = next_token_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        result.append(loss.item())
    return result
