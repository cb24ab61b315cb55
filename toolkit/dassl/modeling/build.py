"""Registries of network parts; torchvision's ResNets and a multilayer perceptron are registered."""

from collections.abc import Sequence
from typing import Any

import torchvision
from torch import Tensor, nn

from dassl.utils import Registry, check_availability

BACKBONE_REGISTRY = Registry("BACKBONE")
HEAD_REGISTRY = Registry("HEAD")
NETWORK_REGISTRY = Registry("NETWORK")


def _build(registry: Registry, name: str, verbose: bool, kwargs: dict[str, Any]) -> nn.Module:
    check_availability(name, registry.registered_names())
    if verbose:
        print(f"{registry._name.capitalize()}: {name}")
    return registry.get(name)(**kwargs)


def build_backbone(name: str, verbose: bool = True, **kwargs: Any) -> nn.Module:
    """Builds a feature extractor with an attribute ``out_features``."""
    return _build(BACKBONE_REGISTRY, name, verbose, kwargs)


def build_head(name: str, verbose: bool = True, **kwargs: Any) -> nn.Module:
    """Builds what sits between backbone and classifier, with an attribute ``out_features``."""
    return _build(HEAD_REGISTRY, name, verbose, kwargs)


def build_network(name: str, verbose: bool = True, **kwargs: Any) -> nn.Module:
    """Builds any other network."""
    return _build(NETWORK_REGISTRY, name, verbose, kwargs)


class Backbone(nn.Module):
    """A feature extractor, (B, 3, H, W) -> (B, out_features); a subclass sets ``_out_features``."""

    @property
    def out_features(self) -> int:
        """Width of the features."""
        return self._out_features


class _ResNet(Backbone):
    """A torchvision ResNet without its classifier."""

    def __init__(self, name: str, pretrained: bool):
        super().__init__()
        self.net = getattr(torchvision.models, name)(weights="DEFAULT" if pretrained else None)
        self._out_features = self.net.fc.in_features
        self.net.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@BACKBONE_REGISTRY.register()
def resnet18(pretrained: bool = True, **kwargs: Any) -> nn.Module:
    """ResNet-18; pretrained weights are torchvision's, and are downloaded."""
    return _ResNet("resnet18", pretrained)


@BACKBONE_REGISTRY.register()
def resnet50(pretrained: bool = True, **kwargs: Any) -> nn.Module:
    """ResNet-50; pretrained weights are torchvision's, and are downloaded."""
    return _ResNet("resnet50", pretrained)


class MLP(nn.Module):
    """Linear layers, each with batch norm (optional), activation and dropout (optional); (B, in) -> (B, out)."""

    def __init__(
        self,
        in_features: int = 2048,
        hidden_layers: int | Sequence[int] = (),
        activation: str = "relu",
        bn: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        activations = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
        widths = [hidden_layers] if isinstance(hidden_layers, int) else list(hidden_layers)
        if activation not in activations or not widths:
            raise ValueError(
                f"MODEL.HEAD needs ACTIVATION in {tuple(activations)} and at least one of HIDDEN_LAYERS, but got "
                f"{activation!r} and {widths}"
            )
        layers: list[nn.Module] = []
        for width in widths:
            layers += [
                nn.Linear(in_features, width),
                *([nn.BatchNorm1d(width)] if bn else []),
                activations[activation](),
            ]
            layers += [nn.Dropout(dropout)] if dropout > 0 else []
            in_features = width
        self.mlp = nn.Sequential(*layers)
        self.out_features = in_features

    def forward(self, x: Tensor) -> Tensor:
        """Applies all layers."""
        return self.mlp(x)


@HEAD_REGISTRY.register()
def mlp(**kwargs: Any) -> nn.Module:
    """A multilayer perceptron."""
    return MLP(**kwargs)
