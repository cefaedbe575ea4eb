"""What a program that tests run is given, and what it came to."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


OWN_FLAGS = ("preset", "recipe", "iters", "device")


def settings(*flags):
    """Settings as flags of `train`, the way `compare` and `sweep` take them: `--set KEY=VALUE`."""
    taken = []
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        name = flag.removeprefix("--").replace("-", "_")
        taken += [flag, value] if name in OWN_FLAGS else ["--set", f"{name}={value}"]
    return tuple(taken)
