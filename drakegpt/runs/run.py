"""A run: the folder that holds everything of one training, from its settings to its weights.

    runs/<name>/config.toml         the complete settings that it started with
    runs/<name>/run.json            dataset version, device, versions; and which settings
                                    changed later, after which iteration
    runs/<name>/tokenizer.json
    runs/<name>/metrics.jsonl       a line per evaluation, and one when it is finished or stopped
    runs/<name>/checkpoints/        the last training states, to resume from
    runs/<name>/best.safetensors    the weights with the lowest loss of an evaluation so far
    runs/<name>/initial.safetensors the weights it started from, if they are another run's

Not here: making a run (`create`, `start`), finding one (`lookup`), and what fills the
folder during training (`session`).
"""

import errno
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt import config as settings
from drakegpt import home
from drakegpt.config import ModelConfig, TrainConfig, files
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.data.tokenizers.load import tokenizer_from_json
from drakegpt.errors import RunError, UsageError
from drakegpt.files import parse_json
from drakegpt.runs.checkpoint import Checkpoint, list_checkpoints, load_weights
from drakegpt.runs.info import FORMAT, Part, check_info, list_earlier_parts
from drakegpt.runs.metrics import get_file_signature, read_last_evaluation, read_metrics
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    import torch

    from drakegpt.models.layers import LanguageModel

log = logging.getLogger("drakegpt")

TRAIN = "Run `drakegpt train MODEL` first."
FILES = ("run.json", "config.toml", "tokenizer.json")  # that every whole run has


class OlderRunError(RunError):
    """A run that an older drakegpt made."""

    state = "from an older drakegpt"


@dataclass(frozen=True)
class Run:
    """A run on disk, opened. Reading it never changes it."""

    folder: Path
    config: TrainConfig
    info: dict[str, Any]
    tokenizer: Tokenizer
    # Settings that differ from those on disk, as (old, new), until the run is resumed with them.
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def model_config(self) -> ModelConfig:
        """The settings of this run's model."""
        config = self.config.model_settings(self.tokenizer.vocab_size)
        return replace(config, final_norm=self.info.get("final_norm", True))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut off by a crash is left out."""
        try:
            return read_metrics(self.folder)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"metrics.jsonl of {self.name} is damaged: {error}.", TRAIN) from error

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluations made during training, oldest first."""
        return [line for line in self.metrics if line["event"] == "evaluation"]

    @property
    def last_evaluation(self) -> dict[str, Any]:
        """The newest evaluation, empty if there is none yet; reads only the file's end."""
        return read_last_evaluation(self.folder)

    @property
    def ending(self) -> dict[str, Any]:
        """The line of metrics that says how training finished; empty if it has not."""
        return next((line for line in self.metrics if line["event"] == "finished"), {})

    @property
    def finished(self) -> bool:
        """Whether training is finished, here or in the run or file it was made from."""
        return bool(self.ending or self.derived)

    def check_finished(self) -> None:
        """Raise `RunError`, with the command that finishes it, if training is not finished."""
        if not self.finished:
            resuming = format_command("train", resume=self.name)
            raise RunError(f"{self.name} is not finished.", f"Finish it: `{resuming}`.")

    @property
    def sweep(self) -> str:
        """The study that this run is a trial of, or nothing.

        A trial is resumed with its study, or by name, and is not part of comparisons.
        """
        return str(self.info.get("sweep", ""))

    @property
    def derived(self) -> str:
        """How the run was made if not by training here: "imported", "packed" or nothing."""
        if "packed" in self.info:
            return "packed"
        return "imported" if "imported_from" in self.info else ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts it was trained in, oldest first: one, unless its length was changed."""
        earlier, saved = list_earlier_parts(self.info), self.checkpoints
        done = earlier[-1].to if earlier else 0
        reached = saved[-1].iteration if saved else done
        return (*earlier, Part(done, max(done, reached), self.config.iters))

    @property
    def has_single_part(self) -> bool:
        """Whether it was trained on one schedule, so that its settings alone reproduce it."""
        return not (list_earlier_parts(self.info) or self.config.minutes)

    @property
    def history(self) -> str:
        """A sentence's end that names the parts it was trained in; nothing for a single one."""
        if self.has_single_part:
            return ""
        if self.config.minutes:
            return (
                f"trained for {pluralize(self.config.minutes, 'minute')}: its number of iterations "
                "was estimated while it trained"
            )
        parts = [f"to {part.to:,} on the schedule of {part.iters:,}" for part in self.parts]
        return f"trained in {len(parts)} parts: iterations {', then '.join(parts)}"

    @property
    def provenance(self) -> str:
        """How it was made if not by one training here with its settings; else nothing."""
        return self.derived or self.history

    @property
    def initial_weights(self) -> Path:
        """The file with the weights of the run that this one started from, if it did."""
        return self.folder / "initial.safetensors"

    def describe_weights(self, iteration: int) -> dict[str, str]:
        """Return the metadata with which a weights file can be used without its run."""
        return {
            "model": json.dumps(asdict(self.model_config)),
            "tokenizer": self.tokenizer.to_json(),
            "dataset": self.config.data,
            "dataset_version": str(self.info["dataset_version"]),
            "iteration": str(iteration),
        }

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All its checkpoints, damaged ones too, oldest first."""
        return list_checkpoints(self.folder / "checkpoints")

    def last_checkpoint(self) -> Checkpoint:
        """Return the newest intact checkpoint; warn if a newer one is damaged.

        Raises `RunError` if there is none.
        """
        problem: RunError | None = None
        for checkpoint in reversed(self.checkpoints):
            try:
                checkpoint.verify()
            except RunError as error:
                problem = problem or error
                continue
            if problem:
                log.warning("%s Going back to iteration %d.", problem.problem, checkpoint.iteration)
            return checkpoint
        raise problem or RunError(f"The run {self.name} has no checkpoint yet.", TRAIN)

    def load_dataset(self) -> Dataset:
        """Load the version of the dataset that this run was trained on.

        Raises `CorpusError` if it is missing, `RunError` if its tokenizer is not the run's.
        """
        data = dataset.load(self.config.data, self.info["dataset_version"])
        if data.tokenizer.to_json() != self.tokenizer.to_json():
            raise RunError(
                f"'{data.name}' is prepared with another tokenizer than that of {self.name}.",
                "One of the two was changed: restore it from a copy, or train a new run.",
            )
        return data

    def load_model(self, device: "torch.device", *, best: bool = False) -> "LanguageModel":
        """Load the model onto `device`, in evaluation mode, with the last or the best weights."""
        from drakegpt.models.packed_linear import Packing
        from drakegpt.runs.inference import load_for_inference

        path = self.folder / "best.safetensors" if best else self.last_checkpoint().weights
        if best and not path.exists():
            raise RunError(f"{self.name} has no weights but its last ones.", "Leave --best out.")
        tensors, _ = load_weights(path)
        packed = self.info.get("packed")
        packing = Packing(packed["bits"], packed["trained"]) if packed else None
        explain = partial(describe_mismatch, self)
        return load_for_inference(self.model_config, tensors, packing, device, explain)


def open_run(folder: Path) -> Run:
    """Open a run's folder; raises `RunError` if it is not one, is damaged or older."""
    try:
        run = _open_cached(folder, tuple(get_file_signature(folder, name) for name in FILES))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # too many open files: this says nothing about the run
        fix = TRAIN
        if folder.parent == home.runs():
            removing = format_command("runs remove", folder.name)
            fix = f"Remove it: `{removing}`; or train it again."
        raise RunError(f"{folder} is not a whole run: {error}", fix) from error
    return Run(folder, run.config, dict(run.info), run.tokenizer)


@lru_cache(maxsize=1 << 14)
def _open_cached(folder: Path, _: tuple[tuple[int, ...], ...]) -> Run:
    """Read and check a run's files, once per signature of them."""
    info = parse_json((folder / "run.json").read_text(encoding="utf-8"))
    if not isinstance(known := info.get("format", 1), int) or known > FORMAT:
        raise ValueError(f"its format is {known}; a newer drakegpt may know it")
    if known < FORMAT:
        raise OlderRunError(
            f"{folder.name} is a run from an older drakegpt.",
            f"Train it again, or remove it: `{format_command('runs remove', folder.name)}`.",
        )
    check_info(info)
    values = files.from_file(folder / "config.toml")
    for change in info.get("changes", ()):
        values.update({name: new for name, (_, new) in change["settings"].items()})
    config = settings.resolve(
        values.pop("model", ""), values.pop("size", ""), values.pop("data", ""), values
    )
    tokenizer = _parse_tokenizer((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return Run(folder, config, info, tokenizer)


_parse_tokenizer = lru_cache(maxsize=8)(tokenizer_from_json)  # most runs share one


def describe_mismatch(run: Run, error: Exception) -> RunError:
    """Return the error for a run whose weights do not have the shapes of its settings."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__  # PyTorch's first line is a title
    return RunError(
        f"The weights of {run.name} do not fit its settings: {reason.rstrip('.')}.",
        "Its config.toml or weights were changed; train again.",
    )
