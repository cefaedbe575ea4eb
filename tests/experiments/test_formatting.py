"""Words that several places share."""

import subprocess
import sys

import pytest

from drakegpt.experiments.formatting import format_or_blank, format_range


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [(None, ",", ""), (0, ",", "0"), (1234, ",", "1,234"), (0.0, "+.4f", "+0.0000")],
)
def test_what_is_not_known_is_blank(value, form, shown):
    assert format_or_blank(value, form) == shown


@pytest.mark.parametrize(
    ("numbers", "said"),
    [((), ""), ((700,), "700"), ((385, 455, 1560), "385 to 1,560"), ((7, 7), "7")],
)
def test_numbers_are_told_from_the_lowest_to_the_highest(numbers, said):
    assert format_range(numbers) == said


def test_words_load_nothing_else_of_the_program():
    code = (
        "import sys, drakegpt.experiments.formatting\n"
        "ours = {name for name in sys.modules if name.startswith('drakegpt')}\n"
        "assert ours == {'drakegpt', 'drakegpt.version', 'drakegpt.experiments',"
        " 'drakegpt.experiments.formatting'}, ours\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
