"""The 2-D U-Net: residual encoder of 18 layers, five decoder blocks, group norms. Names are the checkpoint's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

BOTTLENECK = 512
_GROUPS = 16


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = _norm(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), _norm(outputs))

    def forward(self, values: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(values)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.downsample(values))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = _norm(64)
        self.layer1 = nn.Sequential(_Residual(64, 64, 1), _Residual(64, 64, 1))
        self.layer2 = nn.Sequential(_Residual(64, 128, 2), _Residual(128, 128, 1))
        self.layer3 = nn.Sequential(_Residual(128, 256, 2), _Residual(256, 256, 1))
        self.layer4 = nn.Sequential(_Residual(256, 512, 2), _Residual(512, 512, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [functional.relu(self.bn1(self.conv1(image)))]
        levels.append(self.layer1(functional.max_pool2d(levels[0], 3, 2, 1)))
        for layer in (self.layer2, self.layer3, self.layer4):
            levels.append(layer(levels[-1]))
        return levels


class _Grow(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), _norm(outputs), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), _norm(outputs), nn.ReLU())

    def forward(self, deep: Tensor, skipped: Tensor | None) -> Tensor:
        grown = functional.interpolate(deep, scale_factor=2, mode="nearest")
        joined = grown if skipped is None else torch.cat([grown, skipped], dim=1)
        out: Tensor = self.conv2(self.conv1(joined))
        return out


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = ((512 + 256, 256), (256 + 128, 128), (128 + 64, 64), (64 + 64, 32), (32, 16))
        self.blocks = nn.ModuleList([_Grow(inputs, outputs) for inputs, outputs in widths])

    def forward(self, levels: list[Tensor]) -> Tensor:
        values, skips = levels[-1], [*reversed(levels[:-1]), None]
        for block, skipped in zip(self.blocks, skips, strict=True):
            values = block(values, skipped)
        return values


class UNet2d(nn.Module):
    """Three channels in, one logit out; ``(n, 3, 224, 224)`` to ``(n, 1, 224, 224)``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Encoder()
        self.decoder = _Decoder()
        self.segmentation_head = nn.Sequential(nn.Conv2d(16, 1, 3, padding=1))

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of all five levels, finest first."""
        levels: list[Tensor] = self.encoder(image)
        return levels

    def decode(self, levels: list[Tensor]) -> Tensor:
        """Return logits from the features of all levels."""
        out: Tensor = self.segmentation_head(self.decoder(levels))
        return out
