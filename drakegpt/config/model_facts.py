"""What settings need to know of each model: its class says the same, and a test compares them.

`config` is below `models` and imports none of it, so that `--help` loads no torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFacts:
    """What of a model's architecture decides which settings are valid, or suit it.

    The class attributes of the same names are documented in
    `drakegpt.models.layers.LanguageModel`.
    """

    has_hidden_layers: bool = True
    splits_heads: bool = True
    has_residuals: bool = False
    can_tie_embeddings: bool = False
    has_dropout: bool = False
    drops_embeddings: bool = False


MODEL_FACTS: dict[str, ModelFacts] = {
    "BigramLM": ModelFacts(has_hidden_layers=False, splits_heads=False),
    "SingleHeadAttentionLM": ModelFacts(splits_heads=False),
    "MultiHeadAttentionLM": ModelFacts(),
    "BlocksLM": ModelFacts(),
    "ResidualBlocksLM": ModelFacts(has_residuals=True),
    "TransformerLM": ModelFacts(has_residuals=True, has_dropout=True),
    "GPT1LM": ModelFacts(
        has_residuals=True, can_tie_embeddings=True, has_dropout=True, drops_embeddings=True
    ),
}
