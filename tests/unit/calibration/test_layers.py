"""Inputs of convolutions as rows: their products with the weights are what the convolution computes."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from tersor.calibration.layers import convolution_rows, enough_rows  # noqa: E402
from tersor.calibration.statistics import Moments  # noqa: E402


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [
        ((1, 1), (1, 1), (0, 0), (1, 1), 1),
        ((3, 3), (2, 1), (1, 2), (1, 2), 1),
        ((3, 3), (1, 1), "same", (1, 1), 8),
        ((5,), (2,), "valid", (1,), 2),
        ((2, 2, 3), (1, 2, 1), (1, 0, 1), (1, 1, 1), 1),
    ],
)
def test_rows_times_weights(kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8, *(9, 8, 7)[: len(kernel)])
    weight = torch.randn(16, 8 // groups, *kernel)
    function = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(kernel)]
    expected = function(x, weight, None, stride, padding, dilation, groups)
    (rows,) = convolution_rows(x, kernel, stride, padding, dilation, groups, 10**6, torch.Generator())
    found = rows @ weight.reshape(groups, -1, rows.shape[2]).mT
    found = found.permute(0, 2, 1).reshape(16, 3, -1).transpose(0, 1).reshape(expected.shape)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_some_rows_are_drawn_and_groups_share_them() -> None:
    x = torch.randn(4, 6, 20, 20)
    (rows,) = convolution_rows(x, (3, 3), (1, 1), (1, 1), (1, 1), 6, 40, torch.Generator())
    assert rows.shape == (6, 4 * 10, 9)
    assert enough_rows(9, 6) < enough_rows(9) == enough_rows(9, 1)


def test_products_of_inputs_with_themselves() -> None:
    x = torch.randn(2, 7, 50).mT
    torch.testing.assert_close(Moments.of(x, x).products.float(), x.mT @ x)
