"""EfficientNet-Lite0 as a frozen stem: pixels to what one cell of 32 x 32 pixels shows.

The network is Google's (Tan and Le, ICML 2019, arXiv 1905.11946; the Lite variant has no squeeze-excite and ReLU6 for
its activation), trained on ImageNet. Its convolutions carry their batch normalisation folded in, and every weight is a
float16 value, so that a bundle stores them in half the bytes without any loss. ``training/photos/trunk.py`` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

STEM_CHANNELS = 32
CELL = 32
"""Side in pixels of what one token sees."""
COLOUR_CELL = 16
"""Side in pixels of what one mean colour is taken over; four of them make a cell."""


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """One inverted residual block.

    Attributes:
        expansion: by how much the inner width exceeds the channels that come in.
        kernel: side of the depthwise convolution.
        stride: of that convolution.
        channels_in: before the block.
        channels_out: after it.
    """

    expansion: int
    kernel: int
    stride: int
    channels_in: int
    channels_out: int


def lite0_blocks() -> tuple[BlockSizes, ...]:
    """List the sixteen blocks of Lite0, in order."""
    groups = (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )
    blocks: list[BlockSizes] = []
    channels = STEM_CHANNELS
    for expansion, kernel, stride, width, repeats in groups:
        for number in range(repeats):
            blocks.append(BlockSizes(expansion, kernel, stride if number == 0 else 1, channels, width))
            channels = width
    return tuple(blocks)


MIDDLE_BLOCK = 10
"""Number of the last block at stride 16, counted from 0."""
MIDDLE_CHANNELS, LAST_CHANNELS, COLOUR_CHANNELS = 112, 320, 12
FEATURE_CHANNELS = LAST_CHANNELS + MIDDLE_CHANNELS + COLOUR_CHANNELS


class SameConv(nn.Module):
    """A convolution whose padding is TensorFlow's "same": where it is odd, the larger half lies right and below."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, groups=groups)

    def forward(self, states: Tensor) -> Tensor:
        """Convolve float32 [B, C, H, W]."""
        height, width = states.shape[-2:]
        top, bottom = self._padding(height)
        left, right = self._padding(width)
        if top or bottom or left or right:
            states = functional.pad(states, (left, right, top, bottom))
        return cast(Tensor, self.conv(states))

    def _padding(self, length: int) -> tuple[int, int]:
        reached = (-(-length // self.stride) - 1) * self.stride + self.kernel
        missing = max(reached - length, 0)
        return missing // 2, missing - missing // 2


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, narrow; with a residual where the shape stays."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        inner = sizes.channels_in * sizes.expansion
        self.expand = SameConv(sizes.channels_in, inner, 1) if sizes.expansion > 1 else None
        self.depthwise = SameConv(inner, inner, sizes.kernel, stride=sizes.stride, groups=inner)
        self.project = SameConv(inner, sizes.channels_out, 1)
        self.has_residual = sizes.stride == 1 and sizes.channels_in == sizes.channels_out

    def forward(self, states: Tensor) -> Tensor:
        """Transform float32 [B, C, H, W]."""
        inner = states if self.expand is None else functional.relu6(self.expand(states))
        out = cast(Tensor, self.project(functional.relu6(self.depthwise(inner))))
        return out + states if self.has_residual else out


class EfficientNetLite(nn.Module):
    """The convolutional part of Lite0; frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList(InvertedResidual(sizes) for sizes in lite0_blocks())
        self.requires_grad_(requires_grad=False)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Look at float32 [B, 3, S, S]; returns [B, 112, S / 16, S / 16] and [B, 320, S / 32, S / 32]."""
        states = functional.relu6(self.stem(pixel_values))
        middle = states
        for number, block in enumerate(self.blocks):
            states = block(states)
            if number == MIDDLE_BLOCK:
                middle = states
        return middle, states


class PhotoStem(nn.Module):
    """Pixels to patch embeddings by way of the frozen trunk and of the pixels' own mean colours.

    A classifier of ImageNet throws colour away, hence the twelve colour numbers of each cell.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = EfficientNetLite()
        # parameters, not buffers, so that an exported graph keeps them under their names
        self.feature_mean = nn.Parameter(torch.zeros(FEATURE_CHANNELS, 1, 1), requires_grad=False)
        self.feature_scale = nn.Parameter(torch.ones(FEATURE_CHANNELS, 1, 1), requires_grad=False)
        self.projection = nn.Conv2d(FEATURE_CHANNELS, width, 1)

    def features(self, pixel_values: Tensor) -> Tensor:
        """Look at float32 [B, 3, S, S]; returns [B, 444, S / 32, S / 32]: last block, middle block, colours."""
        middle, last = self.trunk(pixel_values)
        colours = functional.avg_pool2d(pixel_values, COLOUR_CELL)
        return torch.cat((last, functional.avg_pool2d(middle, 2), functional.pixel_unshuffle(colours, 2)), dim=1)

    def project(self, features: Tensor) -> Tensor:
        """Standardise features [B, 444, h, w] and bring them to the transformer's width: [B, C, h, w]."""
        return cast(Tensor, self.projection((features - self.feature_mean) * self.feature_scale))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed float32 [B, 3, S, S]."""
        return self.project(self.features(pixel_values))
