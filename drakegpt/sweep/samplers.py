"""How a sweep may choose what it tries; apart, so that `--help` loads nothing else."""

from typing import Literal, get_args

Sampler = Literal["tpe", "random", "grid"]
SAMPLERS: tuple[str, ...] = get_args(Sampler)
