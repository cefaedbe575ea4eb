"""Short texts by trained runs, for side by side reading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from drakegpt.errors import RunError
from drakegpt.generation.prompt import fit_prompt
from drakegpt.generation.text import generate_text
from drakegpt.models.registry import choose_device
from drakegpt.runs.run import Run
from drakegpt.wording import format_command

SEED = 42
LENGTH = 160


@dataclass(frozen=True)
class Samples:
    """What each of several runs wrote, for one prompt and one seed."""

    prompt: str
    seed: int
    length: int  # tokens, after the prompt
    texts: Mapping[str, str]  # by the name of the run; they begin with what it was given
    # What those runs were given whose tokenizers do not know all of the prompt, by their names.
    fitted: Mapping[str, str] = field(default_factory=dict)

    def given(self, run: str) -> str:
        """The prompt as the run of that name was given it."""
        return self.fitted.get(run, self.prompt)

    @property
    def format_command(self) -> str:
        """The command that writes the text of a run again, with RUN for its name."""
        return format_command(
            "generate",
            "RUN",
            seed=self.seed,
            length=self.length,
            prompt=self.prompt or None,
            unknown="skip" if self.fitted else None,
        )

    def to_json(self) -> dict[str, object]:
        """The prompt, what some were given in its place, the seed and the texts."""
        return {
            "prompt": self.prompt,
            "fitted": dict(self.fitted),
            "seed": self.seed,
            "texts": dict(self.texts),
        }


def generate_samples(runs: Sequence[Run], prompt: str = "", device_name: str = "auto") -> Samples:
    """A sample by each of the runs, from the same seed and as much of the prompt as it knows."""
    given = {run.name: fit_prompt(prompt, run.tokenizer, skip_unknown=True).text for run in runs}
    texts = {run.name: _sample_or_why_not(run, device_name, given[run.name]) for run in runs}
    fitted = {name: text for name, text in given.items() if text != prompt}
    return Samples(prompt, SEED, LENGTH, texts, fitted)


def _sample_or_why_not(run: Run, device_name: str, prompt: str) -> str:
    """A sample; in its place, why there is none by weights that are not finite."""
    try:
        return sample(run, LENGTH, device_name, prompt=prompt)
    except RunError as error:
        return f"{prompt}({error.problem})"


def sample(
    run: Run, length: int, device_name: str = "auto", seed: int = SEED, prompt: str = ""
) -> str:
    """`length` tokens with which the run's model goes on from `prompt`, after it, as text.

    Raises `ValueError` for characters of the prompt that the run's tokenizer does not know.
    """
    model = run.load_model(choose_device(device_name))
    return prompt + "".join(generate_text(model, run.tokenizer, prompt, length, seed=seed))
