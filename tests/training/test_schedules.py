import pytest

from drakegpt.config import resolve
from drakegpt.training.schedules import cyclic

# base 1e-3 to max 5e-3 in five evaluations: by hand
TRIANGLE = [1.0e-3, 1.8e-3, 2.6e-3, 3.4e-3, 4.2e-3, 5.0e-3, 4.2e-3, 3.4e-3, 2.6e-3, 1.8e-3]


def test_cyclic_is_the_original_triangle_twice_in_twenty_evaluations():
    config = resolve("BigramLM", "default", "x")
    assert (config.base_lr, config.max_lr) == (1e-3, 5e-3)
    assert config.iters // config.eval_interval == 20
    assert [cyclic(config, n) for n in range(21)] == pytest.approx([*TRIANGLE * 2, 1e-3])
