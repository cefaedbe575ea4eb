"""The prompt of `drakegpt write` in a terminal: each line is continued.

/again              another continuation of the same text
/temperature 0.7    how daring it writes
/lines 5            five next lines to choose from; a number takes one of them
/quit               ends it, as Ctrl-D does
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from drakegpt.cli import console

if TYPE_CHECKING:
    from drakegpt.runs.run import Run

HELP = "Type a beginning; /again, /temperature 0.7, /lines 5, /quit."
LENGTH = 300  # characters of a continuation
LINE_LENGTH = 200  # and of a line to choose
LINES, MOST_LINES = 5, 20  # offered by default, and at most

# Returns a number of continuations of a text, each of at most a length, at a temperature.
Continue = Callable[[str, int, int, float], list[str]]


@dataclass
class Conversation:
    """What was written so far, and the commands that change it; knows no terminal."""

    continue_text: Continue
    temperature: float
    text: str = ""  # the beginning that was typed, and the lines that were taken
    offered: list[str] = field(default_factory=list)

    def answer(self, line: str) -> str:
        """Return what is shown for a line that was typed."""
        line = line.strip()
        if line.startswith("/"):
            return self._obey(*line[1:].split(maxsplit=1))
        if self.offered and line.isdigit() and 1 <= int(line) <= len(self.offered):
            self.text += self.offered[int(line) - 1] + "\n"
            self.offered = []
            return self.text.rstrip("\n")
        self.text, self.offered = line, []
        return self._continue()

    def _continue(self) -> str:
        [text] = self.continue_text(self.text, 1, LENGTH, self.temperature)
        return (self.text + text).rstrip()

    def _obey(self, command: str = "", value: str = "") -> str:
        match command:
            case "again":
                return self._continue()
            case "temperature":
                return self._set_temperature(value)
            case "lines":
                return self._offer(value)
        return f"There is no command /{command}. {HELP}"

    def _set_temperature(self, value: str) -> str:
        try:
            temperature = float(value)
        except ValueError:
            temperature = -1.0
        if not 0 <= temperature <= 10:
            return f"The temperature is {self.temperature:g}; give a number from 0 to 10."
        self.temperature = temperature
        return f"The temperature is {temperature:g}."

    def _offer(self, value: str) -> str:
        if value and not value.isdigit():
            return f"Give a number of lines, up to {MOST_LINES}: /lines 5."
        number = max(1, min(int(value or LINES), MOST_LINES))
        # A line of its own: the text ends with a line feed, or the continuation completes a line.
        texts = self.continue_text(self.text, number, LINE_LENGTH, self.temperature)
        self.offered = [text.lstrip("\n").split("\n")[0] for text in texts]
        width = len(str(number))
        shown = [f"{place:>{width}}  {line}" for place, line in enumerate(self.offered, 1)]
        return "\n".join([*shown, "A number takes that line."])


def converse(run: "Run", temperature: float, seed: int | None, device: str) -> None:
    """Answer lines from the terminal until they end."""
    conversation = Conversation(_make_continue(run, seed, device), temperature)
    console.note(HELP)
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            console.note("")
            return
        if line.strip() == "/quit":
            return
        console.show_text(conversation.answer(line))


def _make_continue(run: "Run", seed: int | None, device: str) -> Continue:
    """Return what continues texts with a run's best weights."""
    from drakegpt.compute.device import choose_device
    from drakegpt.generation.prompt import fit_prompt
    from drakegpt.generation.sampling import Sampling
    from drakegpt.generation.text import generate_texts

    tokenizer, model = run.tokenizer, run.load_model(choose_device(device), best=True)
    next_seed = int.from_bytes(os.urandom(4)) >> 1 if seed is None else seed

    def continue_text(text: str, number: int, length: int, temperature: float) -> list[str]:
        nonlocal next_seed
        seeds = range(next_seed, next_seed + number)
        next_seed += number
        prompt = fit_prompt(text, tokenizer, skip_unknown=True).text
        pieces = [""] * number
        sampling = Sampling(temperature)
        for parts in generate_texts(model, tokenizer, prompt, length, sampling, seeds, stop=True):
            pieces = [piece + part for piece, part in zip(pieces, parts, strict=True)]
            if all(len(piece) >= length for piece in pieces):
                break
        return [piece[:length] for piece in pieces]

    return continue_text
