"""The machine and its rate of matrix multiplication."""

import torch
from small_bench import CPU

from drakegpt.bench.hardware import describe_machine, measure_matmul_rate


def test_the_rate_of_products_is_plausible():
    assert 1e8 < measure_matmul_rate(CPU, torch.float32, 1) < 1e14


def test_the_machine_is_named():
    machine = describe_machine(CPU)
    assert machine["torch"] == torch.__version__
    assert machine["processor"]
    assert machine["cores"] >= 1
