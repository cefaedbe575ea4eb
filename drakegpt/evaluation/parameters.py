"""Parameter counts that the original's documentation publishes, and why they differ.

Not here: the true counts (`models.size`).
"""

from drakegpt.config import ORIGINAL_MODELS, ModelConfig, ModelName

# Models and sizes whose counts are printed there; for other shapes its formula is used.
PRINTED = {(name, "default") for name in ORIGINAL_MODELS[:-1]} | {(ORIGINAL_MODELS[-1], "scaled")}

# Why each published count differs from the true one; a test adds up every item.
WHY_THEY_DIFFER: dict[ModelName, str] = {
    "BigramLM": "takes the table to be V x C; it is V x V",
    "SingleHeadAttentionLM": "counts positions and head twice (+TC +CV); "
    "leaves out the head's bias (-V)",
    "MultiHeadAttentionLM": "counts positions and head twice (+TC +CV); "
    "leaves out the head's bias (-V)",
    "BlocksLM": "counts one attention too many (+3C²) and each feed-forward as 4C² "
    "where it is C² + C; leaves out the head's bias (-V)",
    "ResidualBlocksLM": "counts one attention too many (+3C²); leaves out in each block the "
    "projection (-C² -C) and the feed-forward biases (-5C), and the head's bias (-V)",
    "TransformerLM": "counts one attention too many (+3C²); leaves out in each block half of the "
    "norms (-2C) and the biases (-6C), and the final norm (-2C)",
}


def compute_published_parameters(config: ModelConfig) -> int | None:
    """Compute the published count for this shape; `None` for a model that is not of the ladder.

    For V = 80 the formula gives the counts printed there: 2,560 · 11,264 · 11,264 ·
    29,952 · 42,240 at default size and 11,223,632 for the scaled TransformerLM.
    """
    if config.model not in ORIGINAL_MODELS:
        return None
    V, T, C = config.vocab_size, config.context_length, config.embedding_dim
    if config.model == "BigramLM":
        return V * C
    attention_model = V * C + T * C + 3 * C**2 + C * V
    square = C**2
    match config.model:
        case "SingleHeadAttentionLM" | "MultiHeadAttentionLM":
            return attention_model + T * C + C * V
        case "BlocksLM":
            return attention_model + config.num_layers * (3 * square + 4 * square)
        case "ResidualBlocksLM":
            return attention_model + config.num_layers * (3 * square + 4 * square + 4 * square)
        case _:
            block = C + 3 * square + square + C + 4 * square + 4 * square
            return attention_model + config.num_layers * block + V
