"""What each model does, in a sentence or two for readers who have never heard of it.

Not here: the ideas in a few words, which the models have themselves (`models.ladder`).
"""

from drakegpt.models.registry import MODELS
from drakegpt.runs.run import Run

EXPLANATIONS = {
    "BigramLM": "It has a table: after each character, how likely each other one is.",
    "SingleHeadAttentionLM": "For each of the last characters it decides how much that one "
    "matters here, and guesses from all of them together. How to decide, it has learned.",
    "MultiHeadAttentionLM": "It does that several times at once: one head may watch the character "
    "before, another the last vowel.",
    "BlocksLM": "It computes something new from what it found, and looks back again, layer by "
    "layer. But each layer hands on only its own result, so what was there before gets lost.",
    "ResidualBlocksLM": "Each layer adds to what is known of a character so far, and replaces "
    "nothing. So nothing gets lost from layer to layer.",
    "TransformerLM": "What a model knows of a character is a list of numbers. Before each step "
    "they are brought to a common size, so that many layers learn steadily.",
    "GPT1LM": "A transformer whose network inside uses a smoother curve, as GPT-1 had it.",
}


DROPPING = ", and drop some at random"  # the part of an idea that needs dropout


def explain(run: Run) -> str:
    """Return what the model of a run does, and how far it looks back."""
    length = run.config.context_length
    unit = run.tokenizer.unit
    seen = f"It sees the last {length:,} {unit}s." if run.config.model != "BigramLM" else ""
    return f"{EXPLANATIONS[run.config.model]} {seen}".strip()


def describe_idea(run: Run) -> str:
    """Return the idea of a run's model; where nothing was dropped at random, it does not say so."""
    kind = MODELS[run.config.model]
    idle = kind.has_dropout and not any(
        (run.config.dropout, run.config.embedding_dropout, run.config.token_dropout)
    )
    if not idle:
        return kind.idea
    short = kind.idea.removesuffix(DROPPING)
    return short if short != kind.idea else f"{kind.idea} (here nothing is dropped)"
