"""Short texts by trained runs, for side by side reading."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drakegpt.generation.text import write
from drakegpt.models.build import choose_device
from drakegpt.training.run import Run

SEED = 42
LENGTH = 160


@dataclass(frozen=True)
class Samples:
    """What each of several runs wrote, for one prompt and one seed."""

    prompt: str
    seed: int
    length: int  # tokens, after the prompt
    texts: Mapping[str, str]  # by the name of the run; they begin with the prompt

    @property
    def command(self) -> str:
        """The command that writes the text of a run again, with RUN for its name."""
        words = ["drakegpt", "generate", "RUN", "--seed", str(self.seed), "-n", str(self.length)]
        return shlex.join([*words, *(["--prompt", self.prompt] if self.prompt else [])])

    def to_json(self) -> dict[str, object]:
        """The prompt, the seed and the texts."""
        return {"prompt": self.prompt, "seed": self.seed, "texts": dict(self.texts)}


def samples_of(runs: Sequence[Run], prompt: str = "", device_name: str = "auto") -> Samples:
    """A sample by each of the runs, all from the same prompt and seed."""
    texts = {run.name: sample(run, LENGTH, device_name, prompt=prompt) for run in runs}
    return Samples(prompt, SEED, LENGTH, texts)


def sample(
    run: Run, length: int, device_name: str = "auto", seed: int = SEED, prompt: str = ""
) -> str:
    """`length` tokens with which the run's model goes on from `prompt`, after it, as text."""
    model = run.load_model(choose_device(device_name))
    return prompt + "".join(write(model, run.tokenizer, prompt, length, seed=seed))
