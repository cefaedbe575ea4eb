"""What each model does, in a sentence or two for readers who have never heard of it.

Not here: the ideas in a few words, which the models have themselves (`models.ladder`).
"""

from drakegpt.models.registry import MODELS
from drakegpt.runs.run import Run

EXPLANATIONS = {
    "BigramLM": "It has a table: after each character, how likely each other one is.",
    "SingleHeadAttentionLM": "It weighs the characters so far, and mixes what it knows of them. "
    "Which ones weigh most, it has learned.",
    "MultiHeadAttentionLM": "It does that several times at once: one head may watch the character "
    "before, another the last vowel.",
    "BlocksLM": "A small network works on what was found; then all of it happens again, a layer "
    "higher. But each layer hands on only its own result.",
    "ResidualBlocksLM": "Each layer adds to what is known of a character so far, and replaces "
    "nothing. So nothing is lost on the way up.",
    "TransformerLM": "Before each part of a layer the numbers are brought to a common size, so "
    "that deep models learn steadily.",
    "GPT1LM": "A transformer whose network inside uses a smoother curve, as GPT-1 had it.",
}


def explain(run: Run) -> str:
    """Return what the model of a run does, and how far it looks back."""
    length = run.config.context_length
    unit = run.tokenizer.unit
    seen = f"It sees the last {length:,} {unit}s." if run.config.model != "BigramLM" else ""
    return f"{EXPLANATIONS[run.config.model]} {seen}".strip()


def describe_idea(run: Run) -> str:
    """Return the idea of a run's model; where nothing is dropped at random, it says so."""
    kind = MODELS[run.config.model]
    idle = kind.has_dropout and not any(
        (run.config.dropout, run.config.embedding_dropout, run.config.token_dropout)
    )
    return f"{kind.idea} (here it drops none)" if idle else kind.idea
