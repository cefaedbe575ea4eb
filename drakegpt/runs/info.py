"""What run.json may say: its format, and the settings that changed while a run was trained."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from drakegpt.config import changeable_settings
from drakegpt.config.schema import PackedBits

# Of a run's folder. It grows when older runs would be misread: when settings are removed or
# change their meaning.
FORMAT = 3
# Settings that may change when a run is resumed: how long it is trained and how it is stored,
# not what it computes.
CHANGEABLE = changeable_settings()


@dataclass(frozen=True)
class Part:
    """A stretch of a run's training that follows the schedule of one length."""

    after: int  # iterations trained before it
    to: int  # iterations trained at its end
    iters: int  # the planned length of the run during this part


def list_earlier_parts(info: Mapping[str, Any]) -> list[Part]:
    """List the parts of a run that ended when its length was changed, oldest first."""
    parts: list[Part] = []
    done = 0
    for change in info.get("changes", ()):
        after, settings = change["iteration"], change["settings"]
        if "iters" in settings and after > done:
            parts.append(Part(done, after, settings["iters"][0]))
            done = after
    return parts


def check_info(info: Mapping[str, Any]) -> None:
    """Raise `ValueError`, `TypeError` or `KeyError` if the contents of run.json are not valid."""
    kinds: dict[str, type] = {
        "created_at": str, "dataset_version": str, "sweep": str, "trial": int, "device": str,
        "imported_from": str, "imported_sha256": str, "final_norm": bool, "packed": dict,
        "purpose": str, "song_half": int, "changes": list, "machine": str, "drakegpt": str,
        "torch": str,
    }  # fmt: skip
    for name, kind in kinds.items():
        if name in info and type(info[name]) is not kind:
            raise ValueError(f"{name} in run.json cannot be {info[name]!r:.40}")
    info["created_at"]
    if not re.fullmatch("[0-9a-f]{64}", info["dataset_version"]):
        raise ValueError("dataset_version in run.json is not a checksum")
    if packed := info.get("packed"):
        _check_packed(packed)
    for change in info.get("changes", ()):
        _check_change(change)


def _check_packed(packed: Mapping[str, Any]) -> None:
    """Check how the weights of a run were packed, and from which run."""
    if packed["bits"] not in get_args(PackedBits) or type(packed["trained"]) is not bool:
        raise ValueError(f"packed in run.json cannot be {packed!r:.60}")
    if not isinstance(packed["from"], str):
        raise ValueError("packed in run.json does not name the run it was made from")


def _check_change(change: Mapping[str, Any]) -> None:
    """Check one change of settings: after which iteration, and from which value to which."""
    if type(change["iteration"]) is not int or change["iteration"] < 0:
        raise ValueError("a change in run.json does not name an iteration")
    for name, (old, _) in change["settings"].items():
        if name not in CHANGEABLE:
            raise ValueError(f"{name!r:.40} in run.json is not a setting that may change")
        if name == "iters" and type(old) is not int:
            raise ValueError(f"the earlier length in run.json cannot be {old!r:.40}")
