"""The 3-D U-Net: encodes CT volumes and, conditioned on a token, segments them. Names are the checkpoint's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (32, 64, 128, 256, 256)
_GROUPS = 16


class _DoubleConv(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv3d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(_GROUPS, outputs),
            nn.LeakyReLU(0.01),
            nn.Conv3d(outputs, outputs, 3, padding=1),
            nn.GroupNorm(_GROUPS, outputs),
            nn.LeakyReLU(0.01),
        )

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = self.double_conv(values)
        return out


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.MaxPool3d(2), _DoubleConv(inputs, outputs))

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = self.encoder(values)
        return out


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _DoubleConv(inputs, outputs)

    def forward(self, deep: Tensor, skipped: Tensor) -> Tensor:
        grown = functional.interpolate(deep, scale_factor=2, mode="trilinear", align_corners=True)
        out: Tensor = self.conv(torch.cat([skipped, grown], dim=1))
        return out


class _Out(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, 1, 1)

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = self.conv(values)
        return out


class UNet3d(nn.Module):
    """One channel in, one logit out; ``(n, 1, 64, 192, 192)`` in both directions."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth, fifth = CHANNELS
        self.conv = _DoubleConv(1, first)
        self.enc1 = _Down(first, second)
        self.enc2 = _Down(second, third)
        self.enc3 = _Down(third, fourth)
        self.enc4 = _Down(fourth, fifth)
        self.dec1 = _Up(fifth + fourth, third)
        self.dec2 = _Up(third + third, second)
        self.dec3 = _Up(second + second, first)
        self.dec4 = _Up(first + first, first)
        self.out = _Out(first)

    def encode(self, volume: Tensor) -> list[Tensor]:
        """Return the features of all five levels, finest first."""
        levels = [self.conv(volume)]
        for down in (self.enc1, self.enc2, self.enc3, self.enc4):
            levels.append(down(levels[-1]))
        return levels

    def decode(self, levels: list[Tensor]) -> Tensor:
        """Return logits from the features of all levels."""
        values = levels[4]
        for up, skipped in zip((self.dec1, self.dec2, self.dec3, self.dec4), reversed(levels[:4]), strict=True):
            values = up(values, skipped)
        out: Tensor = self.out(values)
        return out
