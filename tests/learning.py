"""Training in tests: a trainer on a small text, and what losses become."""

import torch

from drakegpt.config import resolve
from drakegpt.models.build import build_model
from drakegpt.models.loss import next_token_loss
from drakegpt.training.trainer import Step, Trainer

CPU = torch.device("cpu")


def new_trainer(prepared, model="TransformerLM", device=CPU, **settings):
    """A trainer of a new model of default size, with `settings` in place of the recipe's."""
    config = resolve(model, "default", prepared.name, settings)
    torch.manual_seed(config.seed)
    built = build_model(config.model_settings(prepared.tokenizer.vocab_size)).to(device)
    return Trainer(config, built, prepared.split("train"), prepared.split("val"), device)


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
