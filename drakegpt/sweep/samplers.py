"""The names of the samplers; imports nothing, so that `--help` stays fast."""

from typing import Literal, get_args

Sampler = Literal["tpe", "random", "grid"]
SAMPLERS: tuple[str, ...] = get_args(Sampler)
