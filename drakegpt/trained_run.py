"""A run in a notebook: what `drakegpt.train` and `drakegpt.load_run` return.

Not here: functions that are offered without a run (`library`).
"""

import math
import os
from collections.abc import Sequence
from dataclasses import fields
from os import PathLike
from pathlib import Path

from drakegpt.compute.device import choose_device
from drakegpt.config import check_setting
from drakegpt.display import Displayable, Table
from drakegpt.errors import UsageError
from drakegpt.export import onnx_file, transformers_folder
from drakegpt.generation.prompt import fit_prompt
from drakegpt.generation.sampling import Sampling
from drakegpt.generation.text import generate_text
from drakegpt.models.size import count_total_parameters
from drakegpt.runs import scores
from drakegpt.runs.mixtures import load_members
from drakegpt.runs.run import Run
from drakegpt.runs.stored_scores import Scores
from drakegpt.runs.weights_file import PretrainedModel, pretrained_from_run
from drakegpt.wording import pluralize


class TrainedRun(Displayable, Run):
    """A run in a notebook: its folder, opened, whose model can be scored and generates text."""

    def score(self, device: str = "auto") -> Scores:
        """Score the last weights on every character of both splits; known scores are recalled."""
        check_setting("device", device)
        return scores.score_run(self, device)

    def generate(
        self,
        prompt: str = "",
        length: int = 500,
        *,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        best: bool = False,
        counts: bool = False,
        device: str = "auto",
    ) -> str:
        """Generate `length` tokens that continue `prompt`; see `drakegpt.generate`."""
        sampling = Sampling(temperature, top_k, top_p)
        members = [pretrained_from_run(self)]
        return generate_with(members, prompt, length, seed, sampling, best, counts, device)

    def export_onnx(
        self,
        path: str | PathLike[str],
        *,
        best: bool = False,
        licence: str = "",
        replace: bool = False,
    ) -> int:
        """Write one file for ONNX Runtime, which takes all models; returns its bytes.

        `best`: the weights with the lowest estimated loss instead of the last; `licence`: of the
        text and the weights, for the model's card; `replace`: an earlier export.
        """
        return onnx_file.export_onnx(self, Path(path), best=best, licence=licence, replace=replace)

    def export_transformers(
        self,
        folder: str | PathLike[str],
        *,
        best: bool = False,
        licence: str = "",
        replace: bool = False,
    ) -> dict[str, int]:
        """Write a folder for Hugging Face's transformers; returns the bytes of its files.

        It takes TransformerLM and GPT1LM in full precision; else as `export_onnx`.
        """
        return transformers_folder.export_transformers(
            self, Path(folder), best=best, licence=licence, replace=replace
        )

    def to_table(self) -> Table:
        """What it is and how far it has come; the losses are its last evaluation's estimates."""
        parameters = count_total_parameters(self.model_config)
        last = self.last_evaluation
        rows = [
            ("model", f"{self.config.model}, {pluralize(parameters, 'parameter')}"),
            ("dataset", self.config.data),
            ("iterations", f"{last.get('iteration', 0):,} of {self.config.iters:,}"),
        ]
        if last:
            held_out = "tail of training" if self.config.holds_out_tail else "validation"
            rows.append(("train loss, estimate", f"{last['train_loss']:.4f}"))
            rows.append((f"{held_out} loss, estimate", f"{last['val_loss']:.4f}"))
        return Table(f"Run {self.name}", [*rows, ("folder", str(self.folder))])


def to_trained_run(run: Run) -> TrainedRun:
    """Return a run with what it can do in a notebook."""
    return TrainedRun(**{field.name: getattr(run, field.name) for field in fields(Run)})


def generate_with(
    members: Sequence[PretrainedModel],
    prompt: str,
    length: int,
    seed: int | None,
    sampling: Sampling,
    best: bool,
    counts: bool,
    device: str,
) -> str:
    """Generate a text with one or several models, with the arguments of `drakegpt.generate`."""
    check_setting("device", device)
    _check_sampling(length, seed, sampling)
    seed = int.from_bytes(os.urandom(4)) if seed is None else seed
    tokenizer = members[0].tokenizer
    prompt = fit_prompt(prompt, tokenizer, skip_unknown=False).text
    model = load_members(members, choose_device(device), counts=counts, best=best)
    return prompt + "".join(generate_text(model, tokenizer, prompt, length, sampling, seed))


def _check_sampling(length: int, seed: int | None, sampling: Sampling) -> None:
    """Raise `UsageError` for a number that is out of its range."""
    for name, value, lowest, highest in (
        ("length", length, 0, 2**53),
        ("seed", seed, 0, 2**63 - 1),
        ("temperature", sampling.temperature, 0, 1e30),
        ("top_k", sampling.top_k, 1, 2**53),
        ("top_p", sampling.top_p, 0, 1),
    ):
        if value is not None and not (math.isfinite(value) and lowest <= value <= highest):
            raise UsageError(
                f"{name} cannot be {value}.", f"Give a number from {lowest} to {highest:,}."
            )
