"""Triton's kernels compute what a packed layer is, to the last bit: by its interpreter, on a CPU.

A GPU's own results are compared in `test_packed_linear`. The interpreter is told by the
environment, before Triton is imported, so it has a process of its own.
"""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="comes with PyTorch for NVIDIA's GPUs only")

# All cases, each with a traceback where it fails.
COMPARE = """
import json, sys, traceback
import torch
from drakegpt.compute import packed_kernels
from drakegpt.models.bitlinear import quantize_activations, rescale

def compare(M, N, K, parts, levels, with_bias):
    torch.manual_seed(M + N)
    codes = torch.randint(-levels, levels + 1, (N, K), dtype=torch.int8)
    scales = torch.rand(parts) + 0.01
    bias = torch.randn(N) if with_bias else None
    normal = torch.randn(M, K)
    ties = torch.randint(-253, 254, (M, K)) / 2
    ties[:, 0] = 127
    largest = torch.full((M, K), 127.0)
    spread = normal * torch.exp(5 * torch.randn(M, K))
    for x in (normal, ties, largest, spread,
              0 * normal, 1e-7 * normal, 1e-41 * normal, 1e36 * normal):
        activations, token = quantize_activations(x)
        product = (activations.long() @ codes.long().t()).int()
        expected = rescale(product, token, scales, bias)
        assert torch.equal(packed_kernels.packed_linear(x, codes, scales, bias), expected)
    x[0] = torch.nan
    result = packed_kernels.packed_linear(x, codes, scales, bias)
    assert result[0].isnan().all()
    assert torch.equal(result[1:], expected[1:])

failures = []
for case in json.loads(sys.argv[1]):
    try:
        compare(*case)
        failures.append("")
    except Exception:
        failures.append(traceback.format_exc())
print(json.dumps(failures))
"""
CASES = [
    (1, 9, 33, 3, 1, 0),
    (1, 8, 130, 1, 1, 1),
    (1, 5, 1, 5, 127, 1),
    (2, 48, 64, 3, 1, 1),
    (9, 19, 100, 19, 127, 1),
    (8, 16, 1100, 1, 127, 0),
]  # M, N, K, parts, levels, bias


@pytest.fixture(scope="module")
def failures():
    env = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", COMPARE, json.dumps(CASES)]
    done = subprocess.run(command, check=True, env=env, timeout=300, stdout=subprocess.PIPE)
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_interpreted_kernel_is_exact(failures, case):
    assert failures[case] == ""
