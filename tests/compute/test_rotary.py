"""Rotary positions are multiplications of complex numbers, and know distances only."""

from dataclasses import replace

import pytest
import torch

from drakegpt.compute.rotary import rotate, rotate_at
from drakegpt.config import preset_model
from drakegpt.models.registry import build_model

B, T, H, D = 2, 7, 3, 8


@pytest.fixture
def query_key_value():
    return torch.randn(B, T, 3 * H * D, generator=torch.Generator().manual_seed(0)).double()


def rotate_as_complex(query_key_value):
    """Head by head: halves are real and imaginary parts, multiplied by e^(i t theta)."""
    parts = [part.clone() for part in query_key_value.view(B, T, 3, H, D).unbind(2)]
    for part in parts[:2]:
        for t in range(T):
            for pair in range(D // 2):
                angle = t * 10_000 ** (-2 * pair / D)
                turn = torch.polar(torch.ones(()), torch.tensor(angle)).to(torch.complex128)
                point = torch.complex(part[:, t, :, pair], part[:, t, :, pair + D // 2]) * turn
                part[:, t, :, pair], part[:, t, :, pair + D // 2] = point.real, point.imag
    return torch.stack(parts, 2).view(B, T, -1)


def test_halves_of_a_head_are_complex_numbers_turned_by_the_position(query_key_value):
    result = rotate(query_key_value, H)
    torch.testing.assert_close(result, rotate_as_complex(query_key_value), atol=1e-6, rtol=1e-6)
    assert torch.equal(result[..., 2 * H * D :], query_key_value[..., 2 * H * D :]), "values"


def test_its_gradient_is_the_one_of_finite_differences(query_key_value):
    assert torch.autograd.gradcheck(lambda x: rotate(x, H), query_key_value.requires_grad_())


def test_a_single_token_is_rotated_as_in_the_whole_window(query_key_value):
    whole = rotate(query_key_value, H)
    for t in range(T):
        one = rotate_at(query_key_value[:, t : t + 1], H, torch.tensor([t]), 11)
        torch.testing.assert_close(one, whole[:, t : t + 1])


def test_attention_scores_depend_on_distances_alone():
    same = torch.randn(1, 1, 3 * H * D).double().expand(1, T, -1)
    query, key, _ = rotate(same, H).view(T, 3, H, D).unbind(1)
    scores = torch.einsum("thd,shd->hts", query, key)
    for distance in range(T):
        diagonal = scores.diagonal(-distance, 1, 2)
        torch.testing.assert_close(diagonal, diagonal[:, :1].expand_as(diagonal))


def test_a_model_without_position_table_still_tells_places_apart():
    torch.manual_seed(0)
    config = replace(preset_model("TransformerLM", "default", 20), positions="rotary")
    model = build_model(config).eval()
    assert not any("position" in name for name, _ in model.named_parameters())
    one, other = torch.tensor([[1, 2, 3, 4], [2, 1, 3, 4]])
    assert (model(one[None])[0, -1] - model(other[None])[0, -1]).abs().max() > 1e-4
