"""Settings for a text and a time: what `drakegpt write` trains.

A small table, from trials on four texts of 50 KB to 4.7 MB: they are in .github/EXPERIMENTS.md.
How long a run is follows from the time, and its dropout from how often it then reads the text.

Not here: measuring how fast the machine is (`training.run_length`).
"""

from typing import Any

# With fewer characters, or floating-point operations of training, a model does not learn to spell
# with tokens of BPE. A laptop with two cores computes 0.5 to 1 x 10^11 operations a second.
FEWEST_FOR_BPE, LEAST_OPERATIONS_FOR_BPE = 300_000, 1.5e12
# Vocabulary of BPE, from this many characters on.
VOCABULARIES = ((3_000_000, 2048), (FEWEST_FOR_BPE, 1024))
# Operations below which many small batches teach more than few large ones.
FEW_OPERATIONS, FEW_OPERATIONS_OF_BPE = 6e12, 1.2e13
# Epochs after which a text is learned: from there on, the loss of unseen text rises.
MOST_EPOCHS_OF_CHARACTERS, MOST_EPOCHS_OF_BPE = 100, 35

_SHAPE: dict[str, Any] = {
    "recipe": "best", "embedding_dim": 128, "num_heads": 4, "num_layers": 4,
}  # fmt: skip
# The shape by which a machine is measured.
REFERENCE: dict[str, Any] = _SHAPE | {"batch_size": 12, "context_length": 64}


def choose_vocab_size(characters: int, operations: float) -> int:
    """Return the size of BPE's vocabulary for a text and a time, or 0 for characters as tokens."""
    if operations < LEAST_OPERATIONS_FOR_BPE:
        return 0
    return next((size for least, size in VOCABULARIES if characters >= least), 0)


def choose_model(*, bpe: bool) -> str:
    """Return the model that predicts such tokens best."""
    return "GPT1LM" if bpe else "TransformerLM"


def choose_text_settings(operations: float, *, bpe: bool) -> dict[str, Any]:
    """Return the settings of a run with time for that many floating-point operations."""
    short = operations < (FEW_OPERATIONS_OF_BPE if bpe else FEW_OPERATIONS)
    return _SHAPE | {
        "batch_size": 12 if short else 16,
        "context_length": 64 if short else 128,
        "tie_embeddings": bpe,
        "max_epochs": MOST_EPOCHS_OF_BPE if bpe else MOST_EPOCHS_OF_CHARACTERS,
    }
