"""Estimated times of runs, kept in the user's home so that each is measured once.

An estimate belongs to the settings, the processor, the number of threads and the PyTorch
version that it was made with.
"""

import hashlib
import json
from dataclasses import asdict

import torch

from drakegpt import files, home
from drakegpt.compute.device import choose_device, choose_thread_count, describe_cpu
from drakegpt.config import TrainConfig, incidental_settings
from drakegpt.training.run_length import estimate_seconds


def read_or_estimate_seconds(
    config: TrainConfig, vocab_size: int, learnt: int, validated: int, *, estimate: bool
) -> float | None:
    """Return the stored estimate of how many seconds a run takes here.

    Without one, `estimate` has it made by a short trial and stored; else it is `None`.
    The arguments are those of `estimate_seconds`.
    """
    incidental = incidental_settings()
    device = choose_device(config.device)
    of = {
        "settings": {k: v for k, v in asdict(config).items() if k not in incidental},
        "tokens": [vocab_size, learnt, validated],
        "processor": torch.cuda.get_device_name() if device.type == "cuda" else describe_cpu(),
        "threads": choose_thread_count(config.model_settings(vocab_size)),
        "device": device.type,
        "torch": torch.__version__,
    }
    text = json.dumps(of, sort_keys=True)
    path = home.trials() / f"time-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    try:
        return float(files.parse_json(path.read_bytes())["seconds"])
    except (OSError, ValueError, TypeError, KeyError):  # none yet, or damaged: measured again
        if not estimate:
            return None
    seconds = estimate_seconds(config, vocab_size, learnt, validated)
    files.write_text(path, json.dumps(of | {"seconds": seconds}, indent=2) + "\n")
    return seconds
