"""What torchvision tells about its own factories: the size of their images, and of trained weights the classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_SIZE = 224


@dataclass(frozen=True)
class Recipe:
    """How images become inputs of what a factory makes, as far as it is known."""

    size: int = DEFAULT_SIZE
    preprocessing: str | None = None
    labels: tuple[str, ...] | None = None
    is_trained: bool = False


def find_recipe(factory: Callable[..., object], arguments: Mapping[str, Any]) -> Recipe:
    """Return what is known of the weights that a factory is asked for, or else the smallest image size of any."""
    if not getattr(factory, "__module__", "").startswith("torchvision.models"):
        return Recipe(is_trained=bool(arguments.get("weights") or arguments.get("pretrained")))
    from torchvision.models import get_model_weights

    try:
        known = get_model_weights(factory)
    except ValueError:  # torchvision has no weights for it
        return Recipe()
    asked = arguments.get("weights")
    if asked is None:
        return Recipe(size=min((_crop(weights) for weights in known), default=DEFAULT_SIZE))
    try:
        weights = known.verify(asked)
    except (KeyError, TypeError):  # the factory itself will say so, and better
        return Recipe()
    labels = weights.meta.get("categories")
    is_classifier = hasattr(weights.transforms(), "crop_size")
    return Recipe(
        size=_crop(weights),
        preprocessing=_preprocessing(weights) if is_classifier else None,
        labels=tuple(labels) if labels else None,
        is_trained=True,
    )


def _crop(weights: Any) -> int:
    crop = getattr(weights.transforms(), "crop_size", [DEFAULT_SIZE])
    return int(crop[0])


def _preprocessing(weights: Any) -> str:
    from lvc.compiler.data.preprocess import Preprocess

    transforms = weights.transforms()
    return str(
        Preprocess(
            resize=tuple(transforms.resize_size),
            crop=(transforms.crop_size[0],) * 2,
            interpolation=transforms.interpolation.value,
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
        )
    )
