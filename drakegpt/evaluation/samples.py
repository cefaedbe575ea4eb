"""Short texts by trained runs, for side by side reading."""

from drakegpt.generation.text import write
from drakegpt.models.build import choose_device
from drakegpt.training.run import Run

SEED = 42


def sample(
    run: Run, length: int, device_name: str = "auto", seed: int = SEED, prompt: str = ""
) -> str:
    """`length` tokens with which the run's model goes on from `prompt`, after it, as text."""
    model = run.load_model(choose_device(device_name))
    return prompt + "".join(write(model, run.tokenizer, prompt, length, seed=seed))
