"""Every setting of a model and of a training run: its type, its bounds, its meaning.

The fields of `TrainConfig` are the single list of settings: the command line
takes its options and their help from it, configuration files their keys, and
each run folder keeps one instance that reproduces the run.

Not here: filling in what is not given (`resolve`), and checking (`validate`).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_type_hints

ModelName = Literal[
    "BigramLM",
    "SingleHeadAttentionLM",
    "MultiHeadAttentionLM",
    "BlocksLM",
    "ResidualBlocksLM",
    "TransformerLM",
    "GPT1LM",
]

Preset = Literal["none", "shakespeare-tutorial", "shakespeare-sweep", "gpt1-small", "gpt1"]

Size = Literal["default", "scaled"]

Recipe = Literal["original", "fast"]

Bits = Literal["full", "1.58", "1"]

Device = Literal["auto", "cpu", "cuda", "mps"]

Schedule = Literal["cyclic", "constant", "cosine", "hold", "step", "plateau", "two-stage"]

OptimizerName = Literal["adamw", "muon"]

WindowOrder = Literal["random", "epoch"]

WeightDecayOn = Literal["all", "matrices"]

Dtype = Literal["auto", "float32", "bfloat16"]

Wandb = Literal["off", "offline", "online"]

SelectOn = Literal["validation", "training-tail"]

MODEL_NAMES: tuple[str, ...] = get_args(ModelName)

LADDER: tuple[str, ...] = MODEL_NAMES[:6]  # the six rungs, each adding one idea

IDEAS: dict[str, str] = {
    "BigramLM": "look at the last character",
    "SingleHeadAttentionLM": "look back at the characters before it",
    "MultiHeadAttentionLM": "look back in several ways at once",
    "BlocksLM": "think about what was seen, and look again",
    "ResidualBlocksLM": "keep what was there, add what is new",
    "TransformerLM": "keep the numbers in hand: normalise, and drop some at random",
}

SIZES: tuple[str, ...] = get_args(Size)

# A vocabulary, a context, a width: so large at most that PyTorch can count what any two of them
# make together, and so many layers. Other whole numbers: what JSON and floats hold exactly.
LARGEST_SIZE = 2**28

LARGEST_NUMBER = 2**53

# Beyond that, rates and factors overflow in float32 sooner or later.
LARGEST_FLOAT = 1e30


@dataclass(frozen=True)
class Bound:
    """What a number must be: at least, more than, at most or less than that."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None


@dataclass(frozen=True)
class Setting:
    """What a setting means, for help texts, and the panel of the help it belongs to.

    `unlisted` are values that help does not offer: they come with another setting.
    `incidental`: it says where a run computes and how it is kept, or is turned into
    another setting; runs that differ in nothing else are the same mathematics.
    `metavar` stands for a value whose choices would take the room of options' names.
    """

    help: str
    panel: str
    unlisted: tuple[str, ...] = ()
    incidental: bool = False
    metavar: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that is needed to build a model: which one, and its shape."""

    model: ModelName
    vocab_size: int
    context_length: int
    embedding_dim: int
    num_heads: int
    num_layers: int
    dropout: float
    bits: Bits = "full"
    tie_embeddings: bool = False
    final_norm: bool = True  # the original's checkpoints never applied theirs

    @property
    def head_size(self) -> int:
        """Width of one attention head: the embedding is split evenly over the heads."""
        return self.embedding_dim // self.num_heads


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every setting of one training run. The same instance gives the same losses again."""

    model: Annotated[ModelName, Setting("The model to train.", "Model")]
    size: Annotated[Size, Setting("The original's size that fills what is not given.", "Model")]
    preset: Annotated[
        Preset, Setting("A whole system; --list-presets describes them.", "Model", metavar="NAME")
    ]
    recipe: Annotated[
        Recipe,
        Setting("How to train where nothing else is given: as the original, or quickly.", "Recipe"),
    ]
    data: Annotated[str, Setting("Dataset to train on; the latest fetched if not given.", "Run")]
    context_length: Annotated[
        int,
        Bound(ge=1),
        Bound(le=LARGEST_SIZE),
        Setting("Tokens the model sees at once (T).", "Model"),
    ]
    embedding_dim: Annotated[
        int,
        Bound(ge=1),
        Bound(le=LARGEST_SIZE),
        Setting("Width of the vector that stands for a token (C).", "Model"),
    ]
    num_heads: Annotated[
        int,
        Bound(ge=1),
        Bound(le=LARGEST_SIZE),
        Setting("Attention heads; they share the embedding's width.", "Model"),
    ]
    num_layers: Annotated[
        int,
        Bound(ge=1),
        Bound(le=LARGEST_SIZE),
        Setting("Blocks stacked on each other.", "Model"),
    ]
    dropout: Annotated[
        float,
        Bound(ge=0.0),
        Bound(lt=1.0),
        Setting("Share of activations dropped in training (TransformerLM, GPT1LM).", "Model"),
    ]
    bits: Annotated[
        Bits,
        Setting(
            "Weights inside the blocks: full, of three values (1.58) or of two (1).",
            "Model",
            metavar="BITS",
        ),
    ]
    tie_embeddings: Annotated[
        bool, Setting("One table for tokens read and tokens scored (GPT1LM only).", "Model")
    ]
    iters: Annotated[int, Bound(ge=1), Setting("Training iterations, one batch each.", "Recipe")]
    window_order: Annotated[
        WindowOrder,
        Setting("Drawn at random, or all once an epoch, shuffled anew each time.", "Recipe"),
    ]
    epochs: Annotated[
        int, Bound(ge=0), Setting("Sets --iters to so many passes over shuffled windows.", "Recipe")
    ]
    batch_size: Annotated[int, Bound(ge=1), Setting("Windows in one training batch (B).", "Recipe")]
    optimizer: Annotated[
        OptimizerName,
        Setting(
            "AdamW for all weights, or Muon for the matrices and AdamW for the rest.", "Recipe"
        ),
    ]
    muon_lr: Annotated[
        float,
        Bound(gt=0.0),
        Setting("Muon's learning rate while AdamW's is at max_lr; they move together.", "Recipe"),
    ]
    muon_momentum: Annotated[
        float,
        Bound(ge=0.0),
        Bound(lt=1.0),
        Setting("How much of its last direction Muon keeps.", "Recipe"),
    ]
    schedule: Annotated[
        Schedule,
        Setting(
            "How the learning rate moves: the original's is cyclic.",
            "Recipe",
            unlisted=("two-stage",),
        ),
    ]
    hold_share: Annotated[
        float,
        Bound(ge=0.0),
        Bound(le=1.0),
        Setting("Share of --iters after which hold lets the rate fall.", "Recipe"),
    ]
    base_lr: Annotated[
        float,
        Bound(ge=0.0),
        Setting("Lowest learning rate: of a cycle, or where a falling schedule ends.", "Recipe"),
    ]
    max_lr: Annotated[
        float, Bound(gt=0.0), Setting("Highest learning rate; constant stays there.", "Recipe")
    ]
    warmup_iters: Annotated[
        int,
        Bound(ge=0),
        Setting(
            "Iterations in which the rate rises from zero; a twentieth of --iters for cosine, "
            "hold if not given.",
            "Recipe",
        ),
    ]
    decay_factor: Annotated[
        float,
        Bound(gt=0.0),
        Bound(le=1.0),
        Setting("What step and plateau multiply the rate by.", "Recipe"),
    ]
    decay_interval: Annotated[
        int, Bound(ge=1), Setting("Iterations between two decays of step.", "Recipe")
    ]
    plateau_patience: Annotated[
        int,
        Bound(ge=1),
        Setting("Evaluations without a lower loss before plateau decays.", "Recipe"),
    ]
    weight_decay: Annotated[
        float, Bound(ge=0.0), Setting("Pull of weights towards zero.", "Recipe")
    ]
    weight_decay_on: Annotated[
        WeightDecayOn, Setting("Which weights are pulled: all, or no norms and biases.", "Recipe")
    ]
    grad_clip: Annotated[
        float, Bound(ge=0.0), Setting("Largest norm of the gradient; 0 leaves it alone.", "Recipe")
    ]
    grad_accumulation: Annotated[
        int,
        Bound(ge=1),
        Setting("Batches whose gradients are averaged in one iteration.", "Recipe"),
    ]
    patience: Annotated[
        int,
        Bound(ge=0),
        Setting("Stop after so many evaluations without a lower loss; 0: never.", "Run"),
    ]
    select_on: Annotated[
        SelectOn,
        Setting(
            "What evaluations score and choices go by: the validation split, or the last tenth of "
            "the training split, then not trained on; for sweep the latter if not given.",
            "Run",
        ),
    ]
    init_from: Annotated[
        str, Setting("A run whose last weights this one starts from, if any.", "Run")
    ]
    minutes: Annotated[
        float,
        Bound(ge=0.0),
        Bound(le=100_000.0),
        Setting(
            "Time to spend: sets --iters by a short trial on this machine.", "Run", incidental=True
        ),
    ]
    eval_interval: Annotated[
        int,
        Bound(ge=1),
        Setting(
            "Iterations between two evaluations; a twentieth of --iters if not given. The cyclic "
            "schedule moves the rate at each, so their number decides on it.",
            "Run",
        ),
    ]
    eval_iters: Annotated[
        int,
        Bound(ge=1),
        Setting(
            "Random batches of each split in one evaluation; but for recipe original, the whole "
            "validation split where that is less.",
            "Run",
        ),
    ]
    seed: Annotated[
        int,
        Bound(ge=0),
        Bound(lt=2**32),
        Setting("Seed of the weights, the windows and the dropout.", "Run"),
    ]
    save_interval: Annotated[
        int,
        Bound(ge=0),
        Setting(
            "Iterations between checkpoints; 0: at evaluations, for at most 2 % of the time.",
            "Run",
            incidental=True,
        ),
    ]
    wandb: Annotated[Wandb, Setting("Mirror the run to Weights & Biases.", "Run", incidental=True)]
    device: Annotated[
        Device,
        Setting("Where to compute; auto takes a GPU if there is one.", "Run", incidental=True),
    ]
    dtype: Annotated[
        Dtype,
        Setting(
            "Numbers to multiply with; auto is bfloat16 on a GPU that can, else float32.", "Run"
        ),
    ]
    compile: Annotated[
        bool | None,
        Setting("Fuse operations by torch.compile; if not given, on a GPU for long runs.", "Run"),
    ]

    @property
    def holds_out_tail(self) -> bool:
        """Whether the training split's last tenth is kept from training, to choose by."""
        return self.select_on == "training-tail"

    def model_settings(self, vocab_size: int) -> ModelConfig:
        """The model this run trains, for a vocabulary of `vocab_size` tokens."""
        shape = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(ModelConfig)
            if field.name not in ("vocab_size", "final_norm")
        }
        return ModelConfig(vocab_size=vocab_size, **shape)


def setting_of(name: str) -> Setting:
    """The meaning and the panel of one field of `TrainConfig`."""
    return next(item for item in hints()[name].__metadata__ if isinstance(item, Setting))


def choices(name: str, given: Mapping[str, Any] | None = None) -> list[str]:
    """The names that a setting can be; those that come with bits only where these are given."""
    unlisted = () if (given or {}).get("bits", "full") != "full" else setting_of(name).unlisted
    names = (value for value in get_args(type_of(name)) if isinstance(value, str))
    return [name for name in names if name not in unlisted]


def incidental_settings() -> tuple[str, ...]:
    """The settings that may differ between runs that count as the same."""
    return tuple(name for name in hints() if setting_of(name).incidental)


def type_of(name: str) -> Any:
    """The plain type of one field of `TrainConfig`."""
    return hints()[name].__origin__


@cache
def hints() -> dict[str, Any]:
    """The annotations of `TrainConfig`, with the metadata in them."""
    return get_type_hints(TrainConfig, include_extras=True)
