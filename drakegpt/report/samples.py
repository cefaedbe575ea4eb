"""Samples of several runs, generated from the same prompt and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from drakegpt.compute.device import choose_device
from drakegpt.errors import RunError
from drakegpt.generation.prompt import fit_prompt
from drakegpt.generation.text import generate_text
from drakegpt.runs.run import Run
from drakegpt.wording import format_command

SEED = 42
LENGTH = 160


@dataclass(frozen=True)
class Samples:
    """The samples of several runs for one prompt and one seed."""

    prompt: str
    seed: int
    length: int  # tokens, after the prompt
    texts: Mapping[str, str]  # by run name; each begins with the prompt that the run was given
    # By run name: the known part of the prompt, for runs whose tokenizers do not know all of it.
    fitted: Mapping[str, str] = field(default_factory=dict)

    def prompt_of(self, run: str) -> str:
        """Return the prompt that the run of that name was given."""
        return self.fitted.get(run, self.prompt)

    @property
    def command(self) -> str:
        """The command that generates a run's sample again, with RUN for its name."""
        return format_command(
            "generate",
            "RUN",
            seed=self.seed,
            length=self.length,
            prompt=self.prompt or None,
            unknown="skip" if self.fitted else None,
        )

    def to_json(self) -> dict[str, object]:
        """Return the prompt, the shortened prompts, the seed and the texts as plain values."""
        return {
            "prompt": self.prompt,
            "fitted": dict(self.fitted),
            "seed": self.seed,
            "texts": dict(self.texts),
        }


def generate_samples(runs: Sequence[Run], prompt: str = "", device_name: str = "auto") -> Samples:
    """Generate a sample with each run, from the same seed; unknown characters are skipped."""
    given = {run.name: fit_prompt(prompt, run.tokenizer, skip_unknown=True).text for run in runs}
    texts = {run.name: _sample_or_explain(run, device_name, given[run.name]) for run in runs}
    fitted = {name: text for name, text in given.items() if text != prompt}
    return Samples(prompt, SEED, LENGTH, texts, fitted)


def _sample_or_explain(run: Run, device_name: str, prompt: str) -> str:
    """Generate a sample; for weights that are not finite, return the reason instead."""
    try:
        return sample(run, LENGTH, device_name, prompt=prompt)
    except RunError as error:
        return f"{prompt}({error.problem})"


def sample(
    run: Run, length: int, device_name: str = "auto", seed: int = SEED, prompt: str = ""
) -> str:
    """Generate `length` tokens after `prompt` with the run's model; returns both as text.

    Raises `ValueError` for characters of the prompt that are unknown to the run's tokenizer.
    """
    model = run.load_model(choose_device(device_name))
    return prompt + "".join(generate_text(model, run.tokenizer, prompt, length, seed=seed))
