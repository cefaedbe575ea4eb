"""A verdict on a run in at most three sentences: is this loss normal, is it done, what helps?

Facts in, sentences out; nothing is read or computed here but comparisons of these facts.

1. where the loss stands: beside counting, mixed with it, and beside reference runs
2. whether it still falls, is level, overfits or diverges (`trend`), and since when
3. what would help most: the first of `RULES` that applies

"Guesses 1 character in N" is measured: the share of the validation split's tokens to which
the model gave the highest probability is 1 / N.

The evidence for each rule stands under its name in .github/EXPERIMENTS.md. Not here: the facts
of a run (`runs.verdicts`).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from drakegpt.config import LADDER, TrainConfig, resolve
from drakegpt.config.model_facts import MODEL_FACTS
from drakegpt.evaluation.noise import MIN_NOISE, STANDARD_ERRORS
from drakegpt.evaluation.standing import Counting, Standing
from drakegpt.evaluation.trend import Trend
from drakegpt.wording import pluralize

PAIRS = 2
WORDS = {PAIRS: "pairs", 3: "threes"}
NUMBERS = ("four", "five", "six", "seven", "eight", "nine", "ten")
# Twice as many iterations lowered the loss by these shares of its fall in the second half.
DOUBLING_SHARES = 0.25, 0.75
TOO_HIGH = 4  # a learning rate this many times that of the recipe only raises the loss
TOO_SHORT = 0.15  # nats of such a fall, from which nothing helps as much as more iterations
RESIDUAL_MODEL, DEEP_MODEL = "ResidualBlocksLM", "TransformerLM"  # of the ladder
TINY_TOKENS = 30_000  # of a training text, below which nothing helps as much as more text
MANY_EPOCHS = 5  # after which a text has little left to teach
LITTLE = 0.03  # nats that are worth a sentence
CONTEXT_GAIN = 0.05  # nats that counting gains by seeing more than the model's context
ENOUGH_DROPOUT = 0.2
SMALL_GAP = 0.1  # nats from training to validation loss of a model that could be larger
WIDE = 128
LEAST_BPE_CHARACTERS = 100_000


@dataclass(frozen=True)
class Reference:
    """What runs of the same model, recipe and text reached with a number of iterations."""

    iterations: int
    mean: float  # validation loss, nats per token
    spread: float  # sample standard deviation over seeds
    seeds: int

    @property
    def margin(self) -> float:
        """How far one more run may lie from the mean: two standard errors of the difference."""
        return STANDARD_ERRORS * max(self.spread, MIN_NOISE) * math.sqrt(1 + 1 / self.seeds)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a verdict is based on. Losses in nats per token."""

    config: TrainConfig
    standing: Standing
    trend: Trend
    train_loss: float | None  # exact or the last estimate
    unit: str  # "character" or "token"
    characters_per_token: float
    train_tokens: int
    iterations: int
    reference: Reference | None = None

    @property
    def epochs(self) -> float:
        """How often as many tokens were read as the training text has."""
        config = self.config
        at_once = config.batch_size * config.grad_accumulation * config.context_length
        return self.iterations * at_once / self.train_tokens

    @property
    def gap(self) -> float:
        """How far the training loss lies below the validation loss; 0 if it is unknown."""
        return 0.0 if self.train_loss is None else self.standing.loss - self.train_loss


@dataclass(frozen=True)
class Verdict:
    """The sentences, and the name of the rule that the advice is by."""

    standing: str
    trend: str  # empty without enough evaluations
    advice: str
    rule: str
    facts: Facts

    @property
    def lines(self) -> tuple[str, ...]:
        """The sentences that there are, at most three."""
        return tuple(line for line in (self.standing, self.trend, self.advice) if line)

    def to_json(self) -> dict[str, Any]:
        """Return the lines, the rule, and the figures behind them as plain values."""
        facts = self.facts
        reference = facts.reference and asdict(facts.reference)
        return {
            "lines": list(self.lines),
            "rule": self.rule,
            "standing": asdict(facts.standing),
            "trend": asdict(facts.trend),
            "epochs": facts.epochs,
            "reference": reference,
        }


def judge(facts: Facts) -> Verdict:
    """Judge a run by its facts."""
    rule, advice = next(
        (rule, found) for rule, advise in RULES.items() if (found := advise(facts))
    )  # fmt: skip
    return Verdict(_describe_standing(facts), _describe_trend(facts), advice, rule, facts)


def describe_guesses(right: float, unit: str) -> str:
    """Say how often the first guess is right: "guesses 1 character in 2.4"."""
    if right <= 0:
        return f"guesses no {unit} right"
    return f"guesses 1 {unit} in {1 / right:.1f}"


def _describe_standing(facts: Facts) -> str:
    """Describe the loss beside counting, together with it, and beside reference runs."""
    standing = facts.standing
    bits = standing.loss / math.log(2) / facts.characters_per_token
    per = "" if facts.unit == "character" else f" per token, {bits:.2f} bits per character"
    guesses = describe_guesses(standing.right, facts.unit)
    parts = [f"{standing.loss:.2f} nats{per}, {guesses}"]
    if standing.countings:
        parts[0] += f": {_describe_counting(standing, facts.unit)}"
    if standing.mixture is not None:
        parts.append(f"both together {standing.mixture:.2f}")
    if facts.reference:
        parts.append(_describe_reference(facts.reference, facts))
    return "; ".join(parts) + "."


def _describe_counting(standing: Standing, unit: str) -> str:
    """Say which ways of counting the loss beats, and what the others reach."""
    lowest = standing.lowest_counting
    assert lowest  # there are countings
    named = [each for each in standing.countings if each.order in (2, 3) and each is not lowest]
    named.append(lowest)
    beaten = [each for each in named if each.loss > standing.loss]
    ahead = [each for each in named if each not in beaten]
    memory = f", which remembers {pluralize(lowest.ngrams, 'string')}"
    parts = []
    if beaten:
        names = [f"{_name_counting(each, unit)} ({each.loss:.2f})" for each in beaten]
        parts.append(f"beats counting {_join(names)}" + (memory if lowest in beaten else ""))
    if ahead:
        reached = [
            f"{_name_counting(each, unit)}{memory + ',' if each is lowest else ''} "
            f"{'' if index else 'reaches '}{each.loss:.2f}"
            for index, each in enumerate(ahead)
        ]
        parts.append(f"counting {_join(reached)}")
    return "; ".join(parts)


def _name_counting(counting: Counting, unit: str) -> str:
    """Name what is counted: pairs, threes, six in a row."""
    if counting.order == 1:
        return f"single {unit}s"
    return WORDS.get(counting.order) or f"{NUMBERS[counting.order - 4]} in a row"


def _describe_reference(reference: Reference, facts: Facts) -> str:
    """Say what reference runs reach and, for runs as long as they, whether this one does."""
    low, high = reference.mean - reference.margin, reference.mean + reference.margin
    reach = f"this model and recipe reach {low:.2f} to {high:.2f}"
    if facts.iterations != reference.iterations:
        return f"with {reference.iterations:,} iterations {reach}"
    if facts.standing.loss > high:
        return f"{reach}, below this run"
    return reach


def _describe_trend(facts: Facts) -> str:
    """Describe the end of the curve."""
    trend, since = facts.trend, f"{facts.trend.since:,}"
    match trend.kind:
        case "falls":
            return (
                f"Still falls: by {trend.nats:.3f} nats in the second half of "
                f"{pluralize(facts.iterations, 'iteration')}."
            )
        case "level":
            return f"Level since iteration {since}."
        case "overfits":
            return (
                f"Overfits from iteration {since} on: the validation loss rose by "
                f"{trend.nats:.3f} nats, the training loss did not."
            )
        case "diverges":
            return (
                f"Diverges from iteration {since} on: the validation loss rose by "
                f"{trend.nats:.3f} nats, and the training loss rose too."
            )
        case "unknown":
            return ""


def _advise_lower_rate(facts: Facts) -> str:
    config = facts.config
    usual = _get_recipe_rate(config)
    too_high = config.max_lr >= TOO_HIGH * usual
    if facts.trend.kind != "diverges" and not too_high:
        return ""
    rate = usual if too_high else config.max_lr / 4
    base = f" --base-lr {rate:g}" if config.schedule == "constant" else ""
    with_muon = config.optimizer == "muon" and not too_high
    muon = f" --muon-lr {config.muon_lr / 4:g}" if with_muon else ""
    return f"What helps most: a lower learning rate, `--max-lr {rate:g}{base}{muon}`."


def _get_recipe_rate(config: TrainConfig) -> float:
    """Return the peak learning rate that the recipe has for a model of this kind and width."""
    names = ("preset", "recipe", "embedding_dim", "num_heads", "bits")
    given = {name: getattr(config, name) for name in names}
    return resolve(config.model, config.size, config.data, given).max_lr


def _advise_next_model(facts: Facts) -> str:
    """The first models of the ladder lack what makes a deep one learn: residual connections."""
    model, target = facts.config.model, DEEP_MODEL
    if model not in LADDER[: LADDER.index(RESIDUAL_MODEL)] or _is_too_short(facts):
        return ""
    if model == LADDER[0]:
        return (
            f"What helps most: a model that sees more than the last {facts.unit}, as `{target}`; "
            "this one can learn no more than counts of pairs."
        )
    return f"What helps most: a deep model with residual connections, `{target}`."


def _advise_more_text(facts: Facts) -> str:
    if facts.train_tokens >= TINY_TOKENS or facts.epochs < MANY_EPOCHS:
        return ""
    until_then = f"; until then, `--dropout {ENOUGH_DROPOUT}`" if _lacks_dropout(facts) else ""
    return (
        f"What helps most: more text; {pluralize(facts.train_tokens, facts.unit)} were read "
        f"{facts.epochs:.0f} times{until_then}."
    )


def _advise_dropout(facts: Facts) -> str:
    if facts.trend.kind != "overfits" or not _lacks_dropout(facts):
        return ""
    return f"What helps most: `--dropout {ENOUGH_DROPOUT}`, or more text."


def _advise_stopping(facts: Facts) -> str:
    if facts.trend.kind != "overfits":
        return ""
    return (
        "What helps most: more text, or a smaller model; the weights of iteration "
        f"{facts.trend.since:,} are kept, `generate --best`."
    )


def _advise_fast_recipe(facts: Facts) -> str:
    config = facts.config
    plain = config.recipe == "original" and config.preset == "none" and config.bits == "full"
    if not plain or not _is_too_short(facts):
        return ""
    return "What helps most: `--recipe fast`, which learns in half the iterations, or more of them."


def _advise_longer(facts: Facts) -> str:
    return _describe_longer(facts) if _is_too_short(facts) else ""


def _advise_context(facts: Facts) -> str:
    """Counting tells what a longer context is worth; a model that is to use it must be wider."""
    standing, config = facts.standing, facts.config
    lowest, length = standing.lowest_counting, config.context_length
    if standing.long_counting is None or lowest is None or _is_worse_than_pairs(facts):
        return ""
    gain = lowest.loss - standing.long_counting
    if gain < CONTEXT_GAIN:
        return ""
    longer = min(64, max(16, 4 * length))
    wider = f" --embedding-dim {2 * config.embedding_dim}" if config.embedding_dim < WIDE else ""
    return (
        f"What helps most: a larger context, `--context-length {longer}{wider}`: even counting "
        f"gains {gain:.2f} nats where it sees more than {pluralize(length, facts.unit)}."
    )


def _is_worse_than_pairs(facts: Facts) -> bool:
    """Whether a model has not yet learned what a context of one token can tell."""
    pairs = [each.loss for each in facts.standing.countings if each.order == PAIRS]
    return facts.trend.kind == "falls" and any(facts.standing.loss > loss for loss in pairs)


def _advise_somewhat_longer(facts: Facts) -> str:
    worth = facts.trend.kind == "falls" and DOUBLING_SHARES[1] * facts.trend.nats >= LITTLE
    return _describe_longer(facts) if worth else ""


def _advise_wider(facts: Facts) -> str:
    config = facts.config
    if facts.gap >= SMALL_GAP or config.embedding_dim >= WIDE:
        return ""
    return (
        f"What helps most: a wider model, `--embedding-dim {2 * config.embedding_dim}`: this one "
        "does as well on new text as on its own, so it can hold more."
    )


def _advise_counts(facts: Facts) -> str:
    mixture = facts.standing.mixture
    if mixture is None or facts.standing.loss - mixture < LITTLE:
        return ""
    gain = facts.standing.loss - mixture
    return f"What helps most: mix in its counts, `generate --counts`: {gain:.2f} nats lower."


def _advise_bpe(facts: Facts) -> str:
    enough = facts.train_tokens * facts.characters_per_token >= LEAST_BPE_CHARACTERS
    if facts.unit != "character" or not enough:
        return ""
    return "What helps most: tokens of several characters, `data fetch --tokenizer bpe`."


def _advise_more(_: Facts) -> str:
    return "What helps most: more text and a larger model; nothing here is amiss."


def _is_too_short(facts: Facts) -> bool:
    return facts.trend.kind == "falls" and facts.trend.nats >= TOO_SHORT


def _lacks_dropout(facts: Facts) -> bool:
    config = facts.config
    return MODEL_FACTS[config.model].has_dropout and config.dropout < ENOUGH_DROPOUT


def _describe_longer(facts: Facts) -> str:
    least, most = (share * facts.trend.nats for share in DOUBLING_SHARES)
    return (
        f"What helps most: longer training, `--iters {2 * facts.iterations}`: twice as long "
        f"gains some {least:.2f} to {most:.2f} nats."
    )


def _join(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


# The first that applies gives the advice; the last one always does.
RULES: dict[str, Callable[[Facts], str]] = {
    "lower rate": _advise_lower_rate,
    "next model": _advise_next_model,
    "more text": _advise_more_text,
    "dropout": _advise_dropout,
    "best weights": _advise_stopping,
    "recipe": _advise_fast_recipe,
    "longer": _advise_longer,
    "context": _advise_context,
    "somewhat longer": _advise_somewhat_longer,
    "wider": _advise_wider,
    "counts": _advise_counts,
    "bpe": _advise_bpe,
    "nothing amiss": _advise_more,
}
