"""The networks in plain PyTorch, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from model_cases import Adversaries, Batch, Case, Size, classified, images, next_word, tokens
from plain_models import (
    DLRM,
    VAE,
    BasicBlock,
    Bottleneck,
    DiffusionBlock,
    LeNet,
    Mixer,
    Recurrent,
    ResNet,
    Translator,
    UNet,
    dcgan_discriminator,
    dcgan_generator,
    mobilenet,
)
from torch import Tensor, nn
from torch.nn import functional

SGD = torch.optim.SGD


def _mlp(s: Size) -> nn.Module:
    return nn.Sequential(
        nn.Linear(s.width, 4 * s.width), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(4 * s.width, 4 * s.width), nn.ReLU(), nn.Linear(4 * s.width, 10))


def _features(s: Size) -> Batch:
    return torch.randn(s.batch, s.width), torch.randint(0, 10, (s.batch,))


def _lenet(s: Size) -> nn.Module:
    model = LeNet()
    model(torch.zeros(1, 1, s.image, s.image))
    return model


def _words(s: Size) -> Batch:
    text = torch.randint(0, s.words, (s.batch, s.length + 1))
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


def _segmented(s: Size) -> Batch:
    return (torch.randn(s.batch, 1, s.image, s.image),
            torch.randint(0, 2, (s.batch, s.image, s.image)))


def _latent(s: Size) -> Batch:
    return torch.randn(s.batch, s.width, 1, 1), torch.randn(s.batch, 3, 16, 16)


def _elbo(model: Callable[..., Any], x: Tensor) -> Tensor:
    logits, mean, log_var = model(x)
    reconstruction = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    divergence = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
    return (reconstruction + divergence) / len(x)


def _translated(model: Callable[..., Tensor], source: Tensor, target: Tensor) -> Tensor:
    logits = model(source, target[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())


def _clicks(s: Size) -> Batch:
    return (torch.randn(s.batch, s.width), torch.randint(0, s.words, (3, s.batch, 4)),
            torch.randint(0, 2, (s.batch,)).float())


def _clicked(model: Callable[..., Tensor], dense: Tensor, bags: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(model(dense, bags), y)


def _noised(s: Size) -> Batch:
    shape = (s.batch, 3, s.image, s.image)
    return torch.randn(shape), torch.randint(0, 1000, (s.batch,)).float(), torch.randn(shape)


def _denoised(model: Callable[..., Tensor], x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    return functional.mse_loss(model(x, t), noise)


PLAIN: dict[str, Case] = {
    "mlp": Case(_mlp, _features, classified),
    "lenet": Case(_lenet, images(1), classified, SGD, 1e-2),
    "resnet18": Case(
        lambda s: ResNet(BasicBlock, s.blocks, s.width), images(), classified, SGD, 1e-2),
    "resnet50": Case(
        lambda s: ResNet(Bottleneck, s.blocks, s.width), images(), classified, SGD, 1e-2),
    "mobilenet": Case(lambda s: mobilenet(s.width), images(), classified, SGD, 1e-2),
    "unet": Case(lambda s: UNet(s.width), _segmented, classified),
    "dcgan": Case(
        lambda s: Adversaries(dcgan_generator(s.width, s.width), dcgan_discriminator(s.width)),
        _latent, classified, SGD, 1e-2),
    "vae": Case(
        lambda s: VAE(s.image ** 2, 4 * s.width, s.width),
        lambda s: (torch.rand(s.batch, s.image ** 2),), _elbo),
    "lstm": Case(lambda s: Recurrent(nn.LSTM, s.words, s.width), _words, next_word),
    "gru": Case(lambda s: Recurrent(nn.GRU, s.words, s.width), _words, next_word),
    "nn_transformer": Case(
        lambda s: Translator(s.words, s.width, s.heads, s.layers, s.length),
        lambda s: (tokens(s), tokens(s)), _translated),
    "dlrm": Case(lambda s: DLRM(s.width, 3, s.words, s.width), _clicks, _clicked),
    "mixer": Case(lambda s: Mixer(s.image, 4, s.width, s.layers), images(), classified),
    "diffusion": Case(lambda s: DiffusionBlock(s.width, s.heads), _noised, _denoised),
}
