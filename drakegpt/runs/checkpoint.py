"""Saves and loads checkpoints: weights as safetensors, the training state apart.

    checkpoints/00000500/weights.safetensors   tensors, with metadata that describes them
    checkpoints/00000500/state.pt              optimizer, random generators, evaluations
    checkpoints/00000500/manifest.json         checksums of both, written last

A checkpoint is written into a temporary folder, which is renamed once all of it is on
the disk: a folder with a checkpoint's name is complete. Loading never executes code.
"""

import hashlib
import io
import json
import os
import pickle
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from drakegpt.errors import RunError, is_out_of_memory
from drakegpt.files import (
    parse_json,
    remove_folder,
    write_atomically,
    write_folder_atomically,
    write_text,
)

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = "1"
FILES = ("weights.safetensors", "state.pt")
METADATA_KEY = "drakegpt"
NAME = re.compile("[0-9]{8}|[1-9][0-9]{8,}")  # of a checkpoint's folder: its iteration
KEPT = 2  # the last one, and the one before it in case the last is damaged later


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk."""

    folder: Path

    @property
    def iteration(self) -> int:
        """The number of iterations trained."""
        return int(self.folder.name)

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / "weights.safetensors"

    def verify(self) -> dict[str, str]:
        """Return the files' checksums by name; raises `RunError` if one does not match."""
        try:
            manifest: dict[str, str] = parse_json((self.folder / "manifest.json").read_text())
            for name in FILES:
                if _sha256(self.folder / name) != manifest[name]:
                    raise RunError(f"{self.folder / name} is damaged (checksum).", _FIX)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"The checkpoint {self.folder} is damaged: {error}.", _FIX) from error
        return manifest

    def state(self) -> dict[str, Any]:
        """Load the training state; raises `RunError` if it is damaged or empty."""
        import torch

        path = self.folder / "state.pt"
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise RunError(f"{path} is damaged: {first}", _FIX) from error
        if not isinstance(state, dict):
            raise RunError(f"{path} is not a training state.", _FIX)
        if not state:
            raise RunError(
                "This run was imported or packed: it has weights but no optimizer state.",
                "Start a new run, or resume the one that it was made from.",
            )
        return state


_FIX = "Train again, or take another run: `drakegpt runs` lists them."


def save_checkpoint(
    parent: Path,
    iteration: int,
    weights: "Mapping[str, Tensor]",
    state: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> Checkpoint:
    """Write a checkpoint into `parent`, and remove all but the last `KEPT`."""
    import torch

    final = parent / f"{iteration:08d}"
    with write_folder_atomically(final) as temporary:
        save_weights(temporary / "weights.safetensors", weights, metadata)
        with write_atomically(temporary / "state.pt") as file:
            # Into memory first: on a full disk PyTorch's writer raises a `RuntimeError`.
            content = io.BytesIO()
            torch.save(dict(state), content)
            file.write(content.getbuffer())
        manifest = {name: _sha256(temporary / name) for name in FILES}
        write_text(temporary / "manifest.json", json.dumps(manifest))
    for old in list_checkpoints(parent)[:-KEPT]:
        with suppress(OSError):
            remove_folder(old.folder)
    return Checkpoint(final)


def list_checkpoints(parent: Path) -> list[Checkpoint]:
    """List the checkpoints in `parent`, oldest first."""
    try:
        names = os.listdir(parent)  # noqa: PTH208 - thousands of runs are listed
    except OSError:
        return []
    ordered = sorted(filter(NAME.fullmatch, names), key=int)  # there may be more digits than eight
    return [Checkpoint(parent / name) for name in ordered]


def save_weights(path: Path, weights: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata as safetensors, atomically."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # As one entry: safetensors writes several in any order, and equal weights shall give equal
    # bytes.
    described = json.dumps({"format_version": FORMAT_VERSION, **metadata})
    with write_atomically(path) as file:
        file.write(save(tensors, {METADATA_KEY: described}))


def load_weights(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Load the tensors and metadata of a weights file; raises `RunError` if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parse_json((file.metadata() or {}).get(METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise RunError(f"The weights in {path} cannot be read: {error}.", _FIX) from error
    if not isinstance(metadata, dict):
        raise RunError(f"The weights in {path} have no metadata of drakegpt.", _FIX)
    if metadata.get("format_version") != FORMAT_VERSION:
        raise RunError(
            f"{path} has format {metadata.get('format_version')}, not {FORMAT_VERSION}.",
            "It was written by another version of drakegpt; use that one, or train again.",
        )
    return tensors, metadata


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
