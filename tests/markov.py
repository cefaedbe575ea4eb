"""A text of known entropy: four letters, each drawn given the two before it."""

import math
import random

from drakegpt.data.prepare import prepare_dataset

# The next letter is the sum of the last two (mod 4) with probability SURE plus its share of the
# rest, which is uniform.
SURE = 0.8
RIGHT, WRONG = SURE + (1 - SURE) / 4, (1 - SURE) / 4


def markov_text(length):
    chance = random.Random(5)
    text = [0, 1]
    while len(text) < length:
        known = chance.random() < SURE
        text.append((text[-1] + text[-2]) % 4 if known else chance.randrange(4))
    return "".join("abcd"[letter] for letter in text)


def markov_dataset(length):
    return prepare_dataset(
        markov_text(length), name="markov", source="", provenance="", source_sha256=""
    )


def known_loss(context_length):
    """Mean over a window: with one letter known the next is uniform, with two it is H2."""
    h2 = -RIGHT * math.log(RIGHT) - 3 * WRONG * math.log(WRONG)
    return (math.log(4) + (context_length - 1) * h2) / context_length


def sampling_error(context_length, tokens):
    """The standard deviation of the mean of so many tokens' losses under the source itself.

    With two letters known a loss is -ln RIGHT or -ln WRONG; with one it is always ln 4.
    """
    deviation = math.sqrt(RIGHT * 3 * WRONG) * math.log(RIGHT / WRONG)
    return deviation * math.sqrt((context_length - 1) / context_length / tokens)
