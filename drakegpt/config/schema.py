"""Every setting of a model and of a training run: its type, its bounds, its meaning.

The fields of `TrainConfig` are the single list of settings: the command line
takes its options and their help from it, configuration files their keys, and
each run folder keeps one instance that reproduces the run. Whatever else is
known about a setting stands in its `Setting`.

Not here: looking up what is known about a setting (`lookup`), filling in what is not given
(`resolve`), and checking (`validate`).
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt

from drakegpt.config.model_facts import MODEL_FACTS, ModelFacts

ModelName = str  # one of MODEL_NAMES, which a program can add to
Preset = Literal[
    "none", "original", "class", "shakespeare-tutorial", "shakespeare-sweep", "gpt1-small", "gpt1"
]
Size = Literal["default", "scaled"]
Recipe = Literal["original", "fast", "best"]
Bits = Literal["full", "1.58", "1"]
PackedBits = Literal["8", "1.58", "1"]  # of the weights of a packed run
Device = Literal["auto", "cpu", "cuda", "mps"]
Schedule = Literal["cyclic", "constant", "cosine", "hold", "step", "plateau", "two-stage"]
OptimizerName = Literal["adamw", "muon"]
WindowOrder = Literal["random", "epoch"]
WeightDecayOn = Literal["all", "matrices"]
Dtype = Literal["auto", "float32", "bfloat16"]
Positions = Literal["learned", "rotary"]
InitialWeights = Literal["default", "gpt2"]
Wandb = Literal["off", "offline", "online"]
SelectOn = Literal["validation", "training-tail"]

# All models, and those of the ladder, each of which adds one idea to the one before it.
MODEL_NAMES: list[str] = list(MODEL_FACTS)
LADDER: list[str] = MODEL_NAMES[:6]
# The models of the original DrakeGPT, which is all that its figures and claims are about.
ORIGINAL_MODELS: tuple[str, ...] = tuple(LADDER)

SIZES: tuple[str, ...] = get_args(Size)

# Of a vocabulary, a context, a width, a number of layers: any two multiplied fit in 64 bits.
LARGEST_SIZE = 2**28
# Of other whole numbers: JSON and floats hold them exactly.
LARGEST_NUMBER = 2**53
# Of rates and factors: beyond it they overflow in float32.
LARGEST_FLOAT = 1e30

Dimension = Annotated[int, Ge(1), Le(LARGEST_SIZE)]
PositiveInt = Annotated[int, Ge(1), Le(LARGEST_NUMBER)]
NonNegativeInt = Annotated[int, Ge(0), Le(LARGEST_NUMBER)]
PositiveFloat = Annotated[float, Gt(0.0), Le(LARGEST_FLOAT)]
NonNegativeFloat = Annotated[float, Ge(0.0), Le(LARGEST_FLOAT)]
BelowOne = Annotated[float, Ge(0.0), Lt(1.0)]

Panel = Literal["Common", "Model", "Optimization", "Schedule", "Evaluation", "Run"]

PANELS: tuple[Panel, ...] = get_args(Panel)  # of the help, in the order in which it shows them


@dataclass(frozen=True)
class Setting:
    """What is known about a setting beside its type and bounds.

    `incidental`: it is no part of a run's identity. It says where a run computes and
    how it is kept, or is turned into another setting.
    `changeable`: a resumed run may have another value.
    `searchable`: a sweep can search it.
    `unlisted`: choices that help does not offer, since they come with another setting.
    `metavar`: stands for the value in help, in place of its type or its choices.
    `zero`: what the value 0 means, where it is no amount.
    """

    help: str
    panel: Panel
    incidental: bool = False
    changeable: bool = False
    searchable: bool = True
    unlisted: tuple[str, ...] = ()
    metavar: str = ""
    zero: str = ""


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
    positions: Positions = "learned"
    token_dropout: float = 0.0
    embedding_dropout: float = 0.0
    final_norm: bool = True  # the original's checkpoints never applied theirs

    @property
    def facts(self) -> ModelFacts:
        """What of the model's architecture concerns settings."""
        return MODEL_FACTS[self.model]

    @property
    def head_size(self) -> int:
        """Width of one attention head: the embedding is split evenly over the heads."""
        return self.embedding_dim // self.num_heads


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every setting of one training run. The same instance gives the same losses again."""

    model: Annotated[ModelName, Setting("Model to train.", "Model", searchable=False)]
    size: Annotated[
        Size,
        Setting("Size of the model where its dimensions are not given.", "Model", searchable=False),
    ]
    preset: Annotated[
        Preset,
        Setting(
            "Preset of model and training; --list-presets describes them.",
            "Common",
            searchable=False,
            metavar="NAME",
        ),
    ]
    recipe: Annotated[
        Recipe,
        Setting(
            "Defaults of optimizer and schedule: original, fast, or best (lowest loss, but slow).",
            "Common",
        ),
    ]
    data: Annotated[
        str, Setting("Dataset to train on; default: the one fetched last.", "Run", searchable=False)
    ]
    context_length: Annotated[Dimension, Setting("Context length in tokens (T).", "Model")]
    embedding_dim: Annotated[Dimension, Setting("Width of the embeddings (C).", "Model")]
    num_heads: Annotated[
        Dimension, Setting("Number of attention heads; must divide the width.", "Model")
    ]
    num_layers: Annotated[Dimension, Setting("Number of blocks.", "Model")]
    dropout: Annotated[BelowOne, Setting("Dropout probability (TransformerLM, GPT1LM).", "Model")]
    embedding_dropout: Annotated[
        BelowOne,
        Setting(
            "Dropout probability of the embeddings; default: --dropout for GPT1LM and recipe best, "
            "else 0.",
            "Model",
        ),
    ]
    token_dropout: Annotated[
        BelowOne,
        Setting("Probability of zeroing the whole embedding of a token in training.", "Model"),
    ]
    positions: Annotated[
        Positions,
        Setting("A learned vector for each position, or rotary position embeddings.", "Model"),
    ]
    init: Annotated[
        InitialWeights,
        Setting("Random initial weights: the model's default, or those of GPT-2.", "Model"),
    ]
    bits: Annotated[
        Bits,
        Setting(
            "Weight precision in the blocks: full, ternary (1.58) or binary (1).",
            "Model",
            metavar="BITS",
        ),
    ]
    tie_embeddings: Annotated[
        bool, Setting("Tie input and output embeddings (GPT1LM only).", "Model")
    ]
    iters: Annotated[
        PositiveInt, Setting("Number of training iterations.", "Common", changeable=True)
    ]
    window_order: Annotated[
        WindowOrder,
        Setting(
            "Sample windows with replacement (random), or each once per epoch (epoch).",
            "Optimization",
        ),
    ]
    epochs: Annotated[
        NonNegativeInt,
        Setting(
            "Number of epochs; sets --iters, and --window-order epoch.",
            "Common",
            searchable=False,
            zero="off",
        ),
    ]
    batch_size: Annotated[PositiveInt, Setting("Windows per batch (B).", "Optimization")]
    optimizer: Annotated[
        OptimizerName,
        Setting("AdamW, or Muon for matrices and AdamW for the rest.", "Optimization"),
    ]
    muon_lr: Annotated[
        PositiveFloat,
        Setting("Peak learning rate of Muon; follows the same schedule.", "Optimization"),
    ]
    muon_momentum: Annotated[BelowOne, Setting("Momentum of Muon.", "Optimization")]
    muon_weight_decay: Annotated[
        NonNegativeFloat,
        Setting("Weight decay of Muon's matrices; default: --weight-decay.", "Optimization"),
    ]
    muon_split_qkv: Annotated[
        bool, Setting("Let Muon update queries, keys and values as three matrices.", "Optimization")
    ]
    adam_beta2: Annotated[BelowOne, Setting("Beta2 of AdamW.", "Optimization")]
    ema: Annotated[
        BelowOne,
        Setting(
            "Decay of an exponential moving average of the weights, which is then what is scored "
            "and kept; 0 disables it.",
            "Optimization",
            zero="off",
        ),
    ]
    schedule: Annotated[
        Schedule, Setting("Learning rate schedule.", "Schedule", unlisted=("two-stage",))
    ]
    hold_share: Annotated[
        Annotated[float, Ge(0.0), Le(1.0)],
        Setting("Share of --iters before the hold schedule decays.", "Schedule"),
    ]
    base_lr: Annotated[
        NonNegativeFloat,
        Setting("Lowest learning rate, at the end of a decay or cycle.", "Schedule"),
    ]
    max_lr: Annotated[PositiveFloat, Setting("Peak learning rate.", "Schedule")]
    warmup_iters: Annotated[
        NonNegativeInt,
        Setting(
            "Iterations of linear warmup; default: 5 % of --iters for cosine and hold, else 0.",
            "Schedule",
        ),
    ]
    decay_factor: Annotated[
        Annotated[float, Gt(0.0), Le(1.0)],
        Setting("Factor of each decay of the step and plateau schedules.", "Schedule"),
    ]
    decay_interval: Annotated[
        PositiveInt, Setting("Iterations between decays of the step schedule.", "Schedule")
    ]
    plateau_patience: Annotated[
        PositiveInt,
        Setting("Evaluations without improvement before the plateau schedule decays.", "Schedule"),
    ]
    weight_decay: Annotated[NonNegativeFloat, Setting("Weight decay.", "Optimization", zero="off")]
    weight_decay_on: Annotated[
        WeightDecayOn, Setting("Parameters that decay: all, or matrices only.", "Optimization")
    ]
    grad_clip: Annotated[
        NonNegativeFloat,
        Setting(
            "Clip the gradient norm to this value; 0 disables clipping.", "Optimization", zero="off"
        ),
    ]
    grad_accumulation: Annotated[
        PositiveInt, Setting("Batches per iteration, whose gradients are averaged.", "Optimization")
    ]
    patience: Annotated[
        NonNegativeInt,
        Setting(
            "Early stopping patience in evaluations; 0 disables it.",
            "Evaluation",
            changeable=True,
            zero="off",
        ),
    ]
    select_on: Annotated[
        SelectOn,
        Setting(
            "Split by which weights, stops and decays are chosen: validation, or the last tenth of "
            "the training split, which is then not trained on.",
            "Evaluation",
            searchable=False,
        ),
    ]
    init_from: Annotated[
        str, Setting("Start from the weights of this run.", "Run", searchable=False, metavar="RUN")
    ]
    minutes: Annotated[
        Annotated[float, Ge(0.0), Le(100_000.0)],
        Setting(
            "Time of the whole command in minutes: the number of iterations is estimated, and "
            "estimated anew while it trains.",
            "Common",
            changeable=True,
            searchable=False,
            zero="off",
        ),
    ]
    max_epochs: Annotated[
        NonNegativeInt,
        Setting(
            "With --minutes: end after this many epochs, if there is time for more.",
            "Schedule",
            changeable=True,
            searchable=False,
            zero="no limit",
        ),
    ]
    eval_interval: Annotated[
        PositiveInt,
        Setting(
            "Iterations between evaluations; default: 5 % of --iters. The cyclic schedule changes "
            "the learning rate at each evaluation.",
            "Evaluation",
            searchable=False,
        ),
    ]
    eval_iters: Annotated[
        PositiveInt,
        Setting(
            "Batches per split in an evaluation; default: 200 with recipe original, which draws "
            "them at random, else as many as take 8 % of the time, spread evenly over the split. "
            "A smaller validation split is then scored whole.",
            "Evaluation",
            searchable=False,
        ),
    ]
    seed: Annotated[Annotated[int, Ge(0), Lt(2**32)], Setting("Random seed.", "Common")]
    save_interval: Annotated[
        NonNegativeInt,
        Setting(
            "Iterations between checkpoints; 0 saves at evaluations, in at most 2 % of the time.",
            "Run",
            incidental=True,
            changeable=True,
            searchable=False,
            zero="at evaluations",
        ),
    ]
    wandb: Annotated[
        Wandb,
        Setting(
            "Log to Weights & Biases.", "Run", incidental=True, changeable=True, searchable=False
        ),
    ]
    device: Annotated[
        Device,
        Setting(
            "Device; auto uses a GPU if there is one.",
            "Common",
            incidental=True,
            changeable=True,
            searchable=False,
        ),
    ]
    dtype: Annotated[
        Dtype,
        Setting(
            "Compute dtype; auto is bfloat16 on GPUs that support it and, except with recipe "
            "original, on CPUs where a short trial finds it faster; else float32.",
            "Run",
            searchable=False,
        ),
    ]
    compile: Annotated[
        bool | None,
        Setting("Use torch.compile; default: on a GPU, for long runs.", "Run", searchable=False),
    ]

    @property
    def holds_out_tail(self) -> bool:
        """Whether the last tenth of the training split is held out, to choose by."""
        return self.select_on == "training-tail"

    def model_settings(self, vocab_size: int) -> ModelConfig:
        """Return the shape of the model for a vocabulary of `vocab_size` tokens."""
        shape = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(ModelConfig)
            if field.name not in ("vocab_size", "final_norm")
        }
        return ModelConfig(vocab_size=vocab_size, **shape)


def add_model(name: str, facts: ModelFacts, *, on_ladder: bool) -> None:
    """Let settings name another model, on the ladder as its last one; see `models.registry`."""
    MODEL_FACTS[name] = facts
    MODEL_NAMES.append(name)
    if on_ladder:
        LADDER.append(name)
