"""Shannon's bounds, estimated in node, beside sources of known entropy and sums written out."""

import numpy as np
import pytest
from markov import RIGHT, WRONG, markov_text
from node_engine import needs_node, run_engine

pytestmark = needs_node

H2 = -RIGHT * np.log2(RIGHT) - 3 * WRONG * np.log2(WRONG)  # bits per letter of the source

# Shares of letters that are right at each guess: of who knows the source of `markov`, and about
# those of 6-gram counts that guess lyrics.
SOURCE = np.array([RIGHT, WRONG, WRONG, WRONG])
LYRICS = np.array([51, 14, 7.7, 5.4, 4.3, 3.1, 2.2, 2.1, *[1.3] * 4, *[0.5] * 10]) / 100
LYRICS /= LYRICS.sum()


def bounds_of(*samples):
    """The estimates from several lists of ranks."""
    given = [list(map(int, ranks)) for ranks in samples]
    return run_engine("return given.map(shannonBounds)", given)


def entropy(shares):
    shares = shares[shares > 0]
    return -(shares * np.log2(shares)).sum()


def lower_bound(shares):
    """Equation 17 as it is printed."""
    following = np.append(shares[1:], 0)
    number = np.arange(1, len(shares) + 1)
    return (number * (shares - following) * np.log2(number)).sum()


def never_increasing(shares):
    """The nearest shares that never increase: the least, over starts, of the greatest mean."""
    size = len(shares)
    return np.array(
        [
            min(max(shares[a : b + 1].mean() for b in range(i, size)) for a in range(i + 1))
            for i in range(size)
        ]
    )


def draw_ranks(shares, letters, samples, seed):
    chooser = np.random.default_rng(seed)
    return chooser.choice(len(shares), size=(samples, letters), p=shares) + 1


def test_the_rank_is_that_from_the_likeliest_on():
    probabilities = [0.1, 0.4, 0.1, 0.3, 0.1]
    script = "return given.map((_, token) => rankOf(Float64Array.from(given), token))"
    assert run_engine(script, probabilities) == [3, 1, 4, 2, 5]


def test_a_robot_that_knows_the_source_finds_its_entropy_between_the_bounds():
    """The upper bound of this source is its entropy; the lower one is 0.2 log2 4 = 0.4 bits."""
    text = ["abcd".index(letter) for letter in markov_text(10_002)]
    script = """
    const [RIGHT, WRONG, text] = given;
    const ranks = text.slice(2).map((letter, at) => {
      const probabilities = new Float64Array(4).fill(WRONG);
      probabilities[(text[at] + text[at + 1]) % 4] = RIGHT;
      return rankOf(probabilities, letter);
    });
    return shannonBounds(ranks);
    """
    found = run_engine(script, [RIGHT, WRONG, text])
    # By the variance of -log2 q: a letter of the source has 4.09 bits more, or none.
    error = np.sqrt(RIGHT * 3 * WRONG / 10_000) * np.log2(RIGHT / WRONG)
    assert found["upperError"] == pytest.approx(error, rel=0.05)
    assert found["lower"] < H2 < found["upper"] + 3 * error
    assert found["upper"] == pytest.approx(H2, abs=3 * error)
    assert found["lower"] == pytest.approx(0.4, abs=3 * found["lowerError"])
    assert found["meanGuesses"] == pytest.approx(RIGHT + 9 * WRONG, abs=0.03)


def test_a_certain_source_has_no_entropy():
    (found,) = bounds_of([1] * 50)
    assert found == {
        "lower": 0, "upper": 0, "lowerError": 0, "upperError": 0, "meanGuesses": 1,
    }  # fmt: skip


def test_a_uniform_source_has_both_bounds_at_the_logarithm_of_its_letters():
    (found,) = bounds_of([1, 2, 3, 4] * 10_000)
    assert found["lower"] == pytest.approx(2, abs=1e-12)
    assert found["upper"] == pytest.approx(2, abs=1e-4)
    (drawn,) = bounds_of(*draw_ranks(np.full(4, 1 / 4), 10_000, 1, seed=3))
    assert drawn["lower"] == pytest.approx(2, abs=0.03)
    assert drawn["upper"] == pytest.approx(2, abs=0.001)


def test_no_letter_gives_no_bounds():
    assert bounds_of([]) == [None]


def test_shares_that_increase_are_pooled():
    """Half at guess 1 and half at 3 becomes 1/2, 1/4, 1/4; all at guess 2 becomes 1/2, 1/2."""
    found, second = bounds_of([1, 3], [2])
    assert found["upper"] == pytest.approx(1.5 + 1 / 4 / np.log(2))
    assert found["lower"] == pytest.approx(lower_bound(np.array([1 / 2, 1 / 4, 1 / 4])))
    assert (second["lower"], second["upper"]) == pytest.approx((1, 1))


def test_bounds_are_those_of_sums_written_out():
    samples = [
        ranks
        for letters in (1, 2, 5, 20, 100)
        for ranks in draw_ranks(LYRICS, letters, 20, seed=letters)
    ]
    for ranks, found in zip(samples, bounds_of(*samples), strict=True):
        shares = np.bincount(ranks)[1:] / len(ranks)
        pooled = never_increasing(shares)
        correction = ((shares > 0).sum() - 1) / (2 * len(ranks)) / np.log(2)
        assert found["upper"] == pytest.approx(entropy(pooled) + correction, abs=1e-9)
        assert found["lower"] == pytest.approx(lower_bound(pooled), abs=1e-9)
        assert found["lower"] <= found["upper"] + 1e-12
        assert found["meanGuesses"] == pytest.approx(ranks.mean())
        bits = -np.log2(pooled[ranks - 1])
        assert found["upperError"] == pytest.approx(bits.std() / np.sqrt(len(ranks)), abs=1e-9)


@pytest.mark.parametrize("letters", [20, 50, 100])
@pytest.mark.parametrize("shares", [SOURCE, LYRICS], ids=["source", "lyrics"])
def test_the_corrections_bring_the_mean_closer_to_the_bound(shares, letters):
    """Of 3000 games each: the entropy of observed shares is too low, pooled and corrected less."""
    samples = draw_ranks(shares, letters, 3000, seed=letters)
    found = bounds_of(*samples)
    plain = np.mean([entropy(np.bincount(ranks) / letters) for ranks in samples])
    upper = np.mean([estimate["upper"] for estimate in found])
    assert plain < entropy(shares)
    assert abs(upper - entropy(shares)) < abs(plain - entropy(shares)) / 2
    assert abs(upper - entropy(shares)) < 0.1
    lower = np.mean([estimate["lower"] for estimate in found])
    assert 0.9 * lower_bound(shares) < lower < lower_bound(shares)


@pytest.mark.parametrize("letters", [50, 100])
@pytest.mark.parametrize("shares", [SOURCE, LYRICS], ids=["source", "lyrics"])
def test_errors_are_those_of_many_games(shares, letters):
    found = bounds_of(*draw_ranks(shares, letters, 3000, seed=letters))
    for bound in ("lower", "upper"):
        spread = np.std([estimate[bound] for estimate in found])
        named = np.mean([estimate[f"{bound}Error"] for estimate in found])
        assert 0.8 < named / spread < 1.1
