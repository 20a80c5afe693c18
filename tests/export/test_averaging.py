"""The running average of weights that training scores and keeps."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'qdrant-cir[export]'")

from torch import nn  # noqa: E402

from onnx_export.training.averaging import AveragedWeights  # noqa: E402


def one_weight(value: float) -> nn.Module:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def test_the_first_steps_count_alike_and_later_ones_by_the_share() -> None:
    module = one_weight(0.0)
    average = AveragedWeights(module, 0.4)
    for done, value in enumerate((6.0, 6.0, 10.0), start=1):
        nn.init.constant_(module.weight, value)
        average.add(done)
    # 0, then (0 + 6) / 2 = 3, then 3 + 0.4 * 3 = 4.2, then 4.2 + 0.4 * 5.8
    assert average.values["weight"].item() == pytest.approx(6.52)


def test_the_modules_hold_the_average_within_the_block_alone() -> None:
    module = one_weight(2.0)
    average = AveragedWeights(module, 0.5)
    nn.init.constant_(module.weight, 4.0)
    average.add(1)
    with average.in_place():
        assert module.weight.item() == 3.0
    assert module.weight.item() == 4.0


def test_a_share_of_nothing_averages_nothing() -> None:
    module = one_weight(2.0)
    average = AveragedWeights(module, 0.0)
    average.add(1)
    with average.in_place():
        assert module.weight.item() == 2.0
    assert average.values == {}
