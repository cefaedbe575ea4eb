"""What fills the settings that are not given: sizes, and how to train a model of each kind.

Plain values, layered by `config.resolve`: a preset gives every setting, and a
recipe then changes what suits the model better. Where they come from stands
beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drakegpt.config.model_facts import MODEL_FACTS, ModelFacts

# The original's recipe at both its sizes. It evaluates twenty times, five for each half of a
# learning-rate cycle; runs of other lengths do so at most twenty times: see `config.resolve`.
_COMMON: dict[str, Any] = {
    "preset": "none",
    "recipe": "original",
    "tie_embeddings": False,
    "window_order": "random",
    "epochs": 0,
    "weight_decay_on": "all",
    "bits": "full",
    "iters": 10_000,
    "optimizer": "adamw",
    "muon_lr": 0.02,
    "muon_momentum": 0.95,
    "schedule": "cyclic",
    "hold_share": 0.0,
    "decay_factor": 0.9,
    "decay_interval": 1000,
    "plateau_patience": 2,
    "weight_decay": 0.01,
    "grad_clip": 0.0,
    "grad_accumulation": 1,
    "patience": 0,
    "select_on": "validation",
    "minutes": 0.0,
    "init_from": "",
    "eval_iters": 200,
    "save_interval": 0,
    "wandb": "off",
    "seed": 42,
    "device": "auto",
    "dtype": "auto",
    "compile": None,
}
EVALUATIONS = 20
WIDE = 96  # from this width on, a model's time goes into arithmetic
# Times that `fast` reads the training text without dropout. Chosen on the training split's last
# tenth, with width 128, context 64 and 4 layers. On tiny Shakespeare dropout 0 is 0.05 to 0.09
# nats below 0.1 at 0.4, 0.9, 1.7 and 3.4 passes; on the bundled songs by 0.04 at 3.9 passes, and
# 0.1 below it at 7.8 (by 0.10) and 15.7 (by 0.54). With width 256 on tiny Shakespeare 0.1 is 0.17
# nats below 0 at 9.1 passes.
PASSES_WITHOUT_DROPOUT = 5
PRESETS: dict[str, dict[str, Any]] = {
    "default": _COMMON
    | {"context_length": 8, "embedding_dim": 32, "num_heads": 4, "num_layers": 3}
    | {"dropout": 0.1, "batch_size": 32, "base_lr": 1e-3, "max_lr": 5e-3},
    "scaled": _COMMON
    | {"context_length": 256, "embedding_dim": 384, "num_heads": 6, "num_layers": 6}
    | {"dropout": 0.2, "batch_size": 64, "base_lr": 3e-4, "max_lr": 6e-4},
}


@dataclass(frozen=True)
class System:
    """A system that others have published, as settings over those of the default size."""

    description: str
    data: str  # the command that fetches what it reads
    vocab_size: int  # of that
    settings: Mapping[str, Any]


SYSTEMS = {
    "shakespeare-tutorial": System(
        "A tutorial's GPT that reads eight characters of Shakespeare",
        "drakegpt data fetch shakespeare",
        65,
        {
            "model": "TransformerLM", "embedding_dim": 64, "schedule": "constant",
            "base_lr": 1e-3, "max_lr": 1e-3, "iters": 5000, "eval_interval": 1000,
        },
    ),
    "shakespeare-sweep": System(
        "Where a tutorial's search for hyperparameters starts, with a context of 128",
        "drakegpt data fetch shakespeare",
        65,
        {
            "model": "TransformerLM", "context_length": 128, "schedule": "constant",
            "base_lr": 1e-3, "max_lr": 1e-3, "iters": 5000, "eval_interval": 1000,
            "eval_iters": 20, "select_on": "validation",
        },
    ),
    "gpt1-small": System(
        "GPT-1's design at a size that a laptop trains in ten minutes",
        "drakegpt data fetch shakespeare --tokenizer bpe --vocab-size 2048",
        2048,
        {
            "model": "GPT1LM", "context_length": 128, "embedding_dim": 128, "num_heads": 4,
            "num_layers": 4, "dropout": 0.2, "batch_size": 16, "recipe": "fast",
            "weight_decay_on": "matrices", "iters": 3000, "eval_iters": 20,
        },
    ),
    "gpt1": System(
        "GPT-1 from scratch: 116 million weights, of them 15 million in an untied head",
        "drakegpt data fetch FILE --tokenizer bpe --vocab-size 20000",
        20_000,
        {
            "model": "GPT1LM", "context_length": 512, "embedding_dim": 768, "num_heads": 12,
            "num_layers": 12, "dropout": 0.1, "batch_size": 6, "schedule": "cosine",
            "base_lr": 0.0, "max_lr": 2.5e-4, "weight_decay": 0.01, "weight_decay_on": "matrices",
            "grad_clip": 1.0, "iters": 7000, "eval_interval": 200,
        },
    ),
}  # fmt: skip


def recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe sets for a model of that kind and width, over the preset of its size.

    `fast` has high rates that fall in a straight line from the start, and where
    matrices are large and residuals carry the signal, Muon. Found by some ninety
    trials on tiny Shakespeare: with width 128, context 64 and 4 layers Muon needs
    a fifth of AdamW's iterations; with width 32 its steps cost more than they
    gain, and without residuals it diverges. The trials were judged by the validation
    loss, which is a little flattered by that wherever it is shown for this recipe.
    Dropout depends on the text too: see `without_dropout`.
    """
    wide = settings["embedding_dim"] >= WIDE
    facts = MODEL_FACTS.get(settings.get("model", ""), ModelFacts())
    muon = wide and facts.has_residuals
    if settings.get("bits", "full") != "full":
        shorter = {"iters": 2000 if muon else 4000} if settings.get("recipe") == "fast" else {}
        return _bit_recipe(muon=muon) | shorter
    if settings.get("recipe") != "fast":
        return {}
    common = {"schedule": "hold", "base_lr": 1e-5, "weight_decay": 0.0}
    if muon:
        return common | {
            "optimizer": "muon", "muon_lr": 0.06, "muon_momentum": 0.85, "max_lr": 0.03,
            "iters": 2000,
        }  # fmt: skip
    if wide:
        return common | {"max_lr": 3e-3, "iters": 4000}
    return common | {"max_lr": 1e-2, "iters": 4000, "dropout": 0.0}


def without_dropout(settings: Mapping[str, Any], train_tokens: int) -> bool:
    """Whether `fast` drops nothing: a wide model that reads its text a few times only.

    Wherever dropout is not given, by a command, a file or the preset of a system.
    """
    tokens = settings["batch_size"] * settings["grad_accumulation"] * settings["context_length"]
    passes = settings["iters"] * tokens / train_tokens
    wide = settings["embedding_dim"] >= WIDE
    return settings["recipe"] == "fast" and wide and passes < PASSES_WITHOUT_DROPOUT


def _bit_recipe(*, muon: bool) -> dict[str, Any]:
    """What suits weights of one or 1.58 bits, as their authors have it (arXiv 2402.17764 notes).

    A higher rate than in full precision, for small steps round to nothing; at
    half-way a lower one and no weight decay; less dropout. Rates from trials on
    tiny Shakespeare by its validation loss, five at default size, and seven with width
    128, context 64 and 4 layers: there Muon ends a tenth of a nat below AdamW.
    """
    common = {"schedule": "two-stage", "max_lr": 1e-2, "base_lr": 1e-5, "dropout": 0.0}
    if muon:
        return common | {
            "optimizer": "muon", "muon_lr": 0.02, "muon_momentum": 0.9, "weight_decay": 0.0
        }  # fmt: skip
    return common | {"weight_decay": 0.1}
