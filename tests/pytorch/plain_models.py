"""Networks in plain PyTorch, of any size: what people write themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet(nn.Module):
    """LeCun et al. 1998, with tanh and average pooling."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(),
            nn.Linear(84, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.features(x))
        return result


class BasicBlock(nn.Module):
    """The residual block of ResNet-18 and -34 (He et al. 2015)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width),
            nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """The residual block of ResNet-50 and deeper."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wide = width * self.expansion
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width),
            nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide),
        )
        self.shortcut = shortcut(channels, wide, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


def shortcut(channels: int, width: int, stride: int) -> nn.Module:
    """The way around a residual block."""
    if stride == 1 and channels == width:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class ResNet(nn.Module):
    """ResNet over four stages of blocks; the first stage has ``width`` channels."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], layers: tuple[int, ...], width: int = 64,
        classes: int = 10,
    ) -> None:
        super().__init__()
        stem = [
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width),
            nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        ]
        stages: list[nn.Module] = []
        channels = width
        for i, count in enumerate(layers):
            for j in range(count):
                stages.append(block(channels, width << i, 2 if i and not j else 1))
                channels = (width << i) * block.expansion
        self.features = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.features(x))
        return result


class InvertedResidual(nn.Module):
    """The block of MobileNetV2 (Sandler et al. 2018): expand, depthwise, project."""

    def __init__(self, channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.add = stride == 1 and channels == width
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x) if self.add else self.body(x)
        return result


def mobilenet(width: int, classes: int = 10) -> nn.Module:
    """A short MobileNetV2."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
        InvertedResidual(width, width, 1, 1), InvertedResidual(width, 2 * width, 2, 4),
        InvertedResidual(2 * width, 2 * width, 1, 4), InvertedResidual(2 * width, 4 * width, 2, 4),
        nn.Conv2d(4 * width, 8 * width, 1, bias=False), nn.BatchNorm2d(8 * width), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * width, classes),
    )


class UNet(nn.Module):
    """Ronneberger et al. 2015 with two scales: skips are concatenated, convolutions transposed."""

    def __init__(self, width: int, classes: int = 2) -> None:
        super().__init__()
        self.first, self.second = self._pair(1, width), self._pair(width, 2 * width)
        self.bottom = self._pair(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.join2 = self._pair(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.join1 = self._pair(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _pair(channels: int, width: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(functional.max_pool2d(first, 2))
        bottom = self.bottom(functional.max_pool2d(second, 2))
        up2 = self.join2(torch.cat([second, self.up2(bottom)], 1))
        up1 = self.join1(torch.cat([first, self.up1(up2)], 1))
        result: Tensor = self.head(up1)
        return result


def dcgan_generator(latent: int, width: int) -> nn.Module:
    """Radford et al. 2015: noise to images of 16 x 16."""
    return nn.Sequential(
        nn.ConvTranspose2d(latent, 2 * width, 4, 1, 0, bias=False), nn.BatchNorm2d(2 * width),
        nn.ReLU(True), nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width), nn.ReLU(True), nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def dcgan_discriminator(width: int) -> nn.Module:
    """Images of 16 x 16 to one logit each."""
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(2 * width, 1, 4, 1, 0, bias=False),
        nn.Flatten(0),
    )


class VAE(nn.Module):
    """Kingma and Welling 2013; the noise comes from PyTorch's generator."""

    def __init__(self, size: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(size, width), nn.ReLU())
        self.mean, self.log_var = nn.Linear(width, latent), nn.Linear(width, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        mean, log_var = self.mean(h), self.log_var(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        return self.decoder(z), mean, log_var


class Recurrent(nn.Module):
    """A language model on an LSTM or a GRU."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU], words: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.cell = cell(width, width, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.head(self.cell(self.embed(tokens))[0])
        return result


class Translator(nn.Module):
    """``nn.Transformer`` between embeddings and logits, causal on the target's side."""

    def __init__(self, words: int, width: int, heads: int, layers: int, length: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(words, width), nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        self.transformer = nn.Transformer(
            width, heads, layers, layers, 4 * width, dropout=0.1, batch_first=True)
        self.head = nn.Linear(width, words)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        x = self.source(source) + self.places[:source.shape[1]]
        y = self.target(target) + self.places[:target.shape[1]]
        out = self.transformer(x, y, tgt_mask=mask, tgt_is_causal=True)
        result: Tensor = self.head(out)
        return result


class DLRM(nn.Module):
    """Naumov et al. 2019: dense and categorical features, pairwise products, a top network."""

    def __init__(self, dense: int, tables: int, rows: int, width: int) -> None:
        super().__init__()
        self.bottom = nn.Sequential(
            nn.Linear(dense, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU())
        self.tables = nn.ModuleList(
            nn.EmbeddingBag(rows, width, mode="sum") for _ in range(tables))
        pairs = (tables + 1) * tables // 2
        self.top = nn.Sequential(
            nn.Linear(width + pairs, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))
        self.register_buffer("places", torch.tril_indices(tables + 1, tables + 1, -1))

    def forward(self, dense: Tensor, bags: Tensor) -> Tensor:
        x = self.bottom(dense)
        features = torch.stack([x, *(t(b) for t, b in zip(self.tables, bags, strict=True))], 1)
        products = features @ features.transpose(1, 2)
        pairs = products[:, self.places[0], self.places[1]]
        result: Tensor = self.top(torch.cat([x, pairs], 1)).squeeze(1)
        return result


class MixerBlock(nn.Module):
    """Tolstikhin et al. 2021: a network over patches, then one over channels."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(
            nn.Linear(patches, 2 * patches), nn.GELU(), nn.Linear(2 * patches, patches))
        self.channels = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        result: Tensor = x + self.channels(self.norm2(x))
        return result


class Mixer(nn.Module):
    """MLP-Mixer on square images."""

    def __init__(self, image: int, patch: int, width: int, layers: int, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        count = (image // patch) ** 2
        self.blocks = nn.Sequential(*(MixerBlock(count, width) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        result: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return result


class DiffusionBlock(nn.Module):
    """A block of a diffusion U-Net: residual with time, attention over space, down and up."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.inlet = nn.Conv2d(3, width, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.norm1, self.norm2 = nn.GroupNorm(4, width), nn.GroupNorm(4, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm3 = nn.GroupNorm(4, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.down = nn.Conv2d(width, width, 3, 2, 1)
        self.outlet = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.width // 2
        rates = torch.exp(torch.arange(half) * (-9.2 / half))
        angles = t[:, None] * rates[None]
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        h = self.inlet(x)
        r = self.conv1(functional.silu(self.norm1(h))) + time[:, :, None, None]
        h = h + self.conv2(functional.silu(self.norm2(r)))
        flat = self.norm3(h).flatten(2).transpose(1, 2)
        attended = self.attention(flat, flat, flat, need_weights=False)[0]
        h = h + attended.transpose(1, 2).reshape(h.shape)
        low = self.down(h)
        up = functional.interpolate(low, scale_factor=2.0, mode="nearest")
        result: Tensor = self.outlet(h + up)
        return result
