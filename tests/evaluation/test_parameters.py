import pytest

from drakegpt.config import LADDER, preset_model
from drakegpt.evaluation.parameters import WHY_THEY_DIFFER, compute_published_parameters
from drakegpt.models.size import count_parameters


def test_the_published_figures_come_out_of_the_published_formula():
    default = [compute_published_parameters(preset_model(name, "default", 80)) for name in LADDER]
    assert default[:5] == [2_560, 11_264, 11_264, 29_952, 42_240]
    assert compute_published_parameters(preset_model("TransformerLM", "scaled", 80)) == 11_223_632


def test_components_are_named_after_the_code():
    counts = count_parameters(preset_model("TransformerLM", "default", 80))
    assert counts == {
        "embedding.token": 80 * 32,
        "embedding.position": 8 * 32,
        "attention_norm": 3 * 2 * 32,
        "attention.query_key_value": 3 * 3 * 32 * 32,
        "projection": 3 * (32 * 32 + 32),
        "feed_forward_norm": 3 * 2 * 32,
        "feed_forward.widen": 3 * (32 * 128 + 128),
        "feed_forward.narrow": 3 * (128 * 32 + 32),
        "final_norm": 2 * 32,
        "head": 32 * 80 + 80,
    }


@pytest.mark.parametrize("size", ["default", "scaled"])
@pytest.mark.parametrize("name", LADDER)
def test_the_reasons_add_up(name, size):
    """Each item that `WHY_THEY_DIFFER` names, in numbers, is the whole difference."""
    config = preset_model(name, size, 80)
    v, t, c, n = config.vocab_size, config.context_length, config.embedding_dim, config.num_layers
    items = {
        "BigramLM": v * c - v * v,
        "SingleHeadAttentionLM": t * c + c * v - v,
        "MultiHeadAttentionLM": t * c + c * v - v,
        "BlocksLM": 3 * c * c + n * (4 * c * c - (c * c + c)) - v,
        "ResidualBlocksLM": 3 * c * c - n * (c * c + c + 5 * c) - v,
        "TransformerLM": 3 * c * c - n * (2 * c + 6 * c) - 2 * c,
    }
    counted = sum(count_parameters(config).values())
    assert compute_published_parameters(config) - counted == items[name]
    assert WHY_THEY_DIFFER[name]
