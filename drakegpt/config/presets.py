"""Values of settings that are not given: sizes, presets and recipes.

`config.resolve` layers them: a size has a value for every setting, a preset and a
recipe change some of them. Their sources stand beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drakegpt.config.model_facts import MODEL_FACTS, ModelFacts

# The original's recipe at both its sizes. It evaluates twenty times, five times in each half of a
# learning rate cycle; runs of other lengths evaluate at most twenty times (see `config.resolve`).
_COMMON: dict[str, Any] = {
    "preset": "none",
    "recipe": "original",
    "tie_embeddings": False,
    "positions": "learned",
    "token_dropout": 0.0,
    "init": "default",
    "window_order": "random",
    "epochs": 0,
    "weight_decay_on": "all",
    "bits": "full",
    "iters": 10_000,
    "optimizer": "adamw",
    "muon_lr": 0.02,
    "muon_momentum": 0.95,
    "muon_split_qkv": False,
    "adam_beta2": 0.95,
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
    "max_epochs": 0,
    "init_from": "",
    "save_interval": 0,
    "wandb": "off",
    "seed": 42,
    "device": "auto",
    "dtype": "auto",
    "compile": None,
}
EVALUATIONS = 20
# Batches of each split in an evaluation of the original. Other recipes score no more, and only as
# many as take this share of the time of training, but at least some tokens, for precision.
EVAL_ITERS = 200
EVALUATION_SHARE = 0.08
MIN_EVALUATED_TOKENS = 2048
WIDE = 96  # from this width on, most of the time is arithmetic
EMA_REACH = 100.0  # iterations of the average of the weights, at the most
# How often a text is read before dropout pays: the trials are in .github/EXPERIMENTS.md. Wide
# models with `fast` have none below the first number; `best` has the dropout of the last row that
# starts at or below the epochs of the run: epochs, dropout, token dropout.
FAST_EPOCHS_WITHOUT_DROPOUT = 5
BEST_DROPOUT = ((0, 0.0, 0.0), (12, 0.1, 0.0), (25, 0.2, 0.0), (60, 0.3, 0.15))
SIZE_SETTINGS: dict[str, dict[str, Any]] = {
    "default": _COMMON
    | {"context_length": 8, "embedding_dim": 32, "num_heads": 4, "num_layers": 3}
    | {"dropout": 0.1, "batch_size": 32, "base_lr": 1e-3, "max_lr": 5e-3},
    "scaled": _COMMON
    | {"context_length": 256, "embedding_dim": 384, "num_heads": 6, "num_layers": 6}
    | {"dropout": 0.2, "batch_size": 64, "base_lr": 3e-4, "max_lr": 6e-4},
}


@dataclass(frozen=True)
class PresetDefinition:
    """A training over the default size, of one model or of any, as `settings` say."""

    description: str
    data: str  # the command that prepares its dataset
    vocab_size: int  # of that dataset
    settings: Mapping[str, Any]


CLASS = "class"
PRESETS = {
    # Its values come from trials on tiny Shakespeare: see .github/EXPERIMENTS.md.
    CLASS: PresetDefinition(
        "The six models in a few minutes, for a lesson: what `drakegpt compare --train` trains",
        "drakegpt data fetch sample",
        80,
        {
            "context_length": 32, "embedding_dim": 96, "num_heads": 4, "num_layers": 3,
            "dropout": 0.0, "batch_size": 16, "recipe": "fast", "muon_lr": 0.03, "iters": 2000,
        },
    ),
    "shakespeare-tutorial": PresetDefinition(
        "A tutorial's GPT that reads eight characters of Shakespeare",
        "drakegpt data fetch shakespeare",
        65,
        {
            "model": "TransformerLM", "embedding_dim": 64, "schedule": "constant",
            "base_lr": 1e-3, "max_lr": 1e-3, "iters": 5000, "eval_interval": 1000,
        },
    ),
    "shakespeare-sweep": PresetDefinition(
        "Where a tutorial's search for hyperparameters starts, with a context of 128",
        "drakegpt data fetch shakespeare",
        65,
        {
            "model": "TransformerLM", "context_length": 128, "schedule": "constant",
            "base_lr": 1e-3, "max_lr": 1e-3, "iters": 5000, "eval_interval": 1000,
            "eval_iters": 20, "select_on": "validation",
        },
    ),
    "gpt1-small": PresetDefinition(
        "GPT-1's design at a size that a laptop trains in ten minutes",
        "drakegpt data fetch shakespeare --tokenizer bpe --vocab-size 2048",
        2048,
        {
            "model": "GPT1LM", "context_length": 128, "embedding_dim": 128, "num_heads": 4,
            "num_layers": 4, "dropout": 0.2, "batch_size": 16, "recipe": "fast",
            "weight_decay_on": "matrices", "iters": 3000, "eval_iters": 20,
        },
    ),
    "gpt1": PresetDefinition(
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


def recipe_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the recipe sets for a model of that kind and width.

    `fast` has high learning rates with a linear decay from the start, and Muon for wide
    models with residuals. Its values come from trials on tiny Shakespeare that were judged
    by the validation loss, so losses shown for this recipe are slightly optimistic: see
    .github/EXPERIMENTS.md. Dropout depends on the text as well: see `choose_dropout`.
    """
    # A file can name any value for the model, which is not checked yet.
    facts = MODEL_FACTS.get(str(settings.get("model", "")), ModelFacts())
    wide = settings["embedding_dim"] >= WIDE and facts.has_hidden_layers
    muon = wide and facts.has_residuals
    if settings.get("bits", "full") != "full":
        shorter = {"iters": 2000 if muon else 4000} if settings.get("recipe") == "fast" else {}
        return _low_bit_recipe(muon=muon) | shorter
    if settings.get("recipe") == "best":
        return _best_recipe()
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


def _best_recipe() -> dict[str, Any]:
    """Return the recipe for the lowest loss: regularized strongly, and trained long.

    Muon for the matrices of the blocks, a learning rate that is held and then falls to 0,
    an average of the weights (EMA), rotary positions, dropout, and token dropout.
    """
    return {
        "optimizer": "muon", "muon_lr": 0.02, "muon_momentum": 0.95, "muon_split_qkv": True,
        "max_lr": 1e-3, "base_lr": 0.0, "adam_beta2": 0.99, "weight_decay": 0.1,
        "weight_decay_on": "matrices", "schedule": "hold", "hold_share": 0.4, "warmup_iters": 50,
        "positions": "rotary", "init": "gpt2", "dropout": 0.3, "token_dropout": 0.15,
        "iters": 5000,
    }  # fmt: skip


def choose_dropout(
    settings: Mapping[str, Any], train_tokens: int, parameters: int
) -> dict[str, float]:
    """Return the dropout of a run that reads its training text for some number of epochs.

    A text that is read a few times teaches something new at each step, so dropout only slows
    that down; and a model with fewer parameters than the text has tokens cannot learn it by
    heart. It applies to what is not given by a flag, a file or a preset.
    """
    tokens = settings["batch_size"] * settings["grad_accumulation"] * settings["context_length"]
    epochs = settings["iters"] * tokens / train_tokens
    if settings["recipe"] == "best":
        reached = [row for row in BEST_DROPOUT if row[0] <= epochs]
        _, dropout, token_dropout = reached[-1] if parameters > train_tokens else BEST_DROPOUT[0]
        return {"dropout": dropout, "token_dropout": token_dropout}
    wide = settings["embedding_dim"] >= WIDE
    if settings["recipe"] == "fast" and wide and epochs < FAST_EPOCHS_WITHOUT_DROPOUT:
        return {"dropout": 0.0}
    return {}


def choose_ema(settings: Mapping[str, Any]) -> float:
    """Return the decay of the average of the weights, where that is not given.

    With recipe `best` the average reaches back over a tenth of the run, and 100 iterations at
    the most: over a larger share of a short run it holds weights that were much worse.
    """
    if settings.get("recipe") != "best" or not isinstance(settings.get("iters"), int):
        return 0.0
    reach = min(EMA_REACH, max(1.0, settings["iters"] / 10))
    return round(1 - 1 / reach, 4)


def choose_eval_iters(settings: Mapping[str, Any]) -> int:
    """Return the batches of each split in an evaluation, where that is not given.

    To score a token takes a third of the time of training on it: so evaluations take at most
    `EVALUATION_SHARE` of the time of the steps between them, unless those are very few.
    """
    if settings.get("recipe") == "original":
        return EVAL_ITERS
    steps = settings["eval_interval"] * settings["grad_accumulation"]
    affordable = int(EVALUATION_SHARE * 3 * steps / 2)  # of each of both splits
    least = -(-MIN_EVALUATED_TOKENS // (settings["batch_size"] * settings["context_length"]))
    return max(least, min(affordable, EVAL_ITERS))


def _low_bit_recipe(*, muon: bool) -> dict[str, Any]:
    """Return the recipe for weights of 1 or 1.58 bits (training notes of arXiv 2402.17764).

    A higher learning rate than in full precision, because small steps are rounded away;
    from half-way on a lower one and no weight decay; no dropout. The rates come from trials
    judged by the validation loss: see .github/EXPERIMENTS.md.
    """
    common = {"schedule": "two-stage", "max_lr": 1e-2, "base_lr": 1e-5, "dropout": 0.0}
    if muon:
        return common | {
            "optimizer": "muon", "muon_lr": 0.02, "muon_momentum": 0.9, "weight_decay": 0.0
        }  # fmt: skip
    return common | {"weight_decay": 0.1}
