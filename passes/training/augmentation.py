"""What is done to training images at random so that the model does not learn them by heart.

The transformations are those of torchvision (``torchvision.transforms.v2``); each draws from torch's generator, which
`lvc.passes.training.feed` seeds for each step. Pictures are augmented as bytes, before they are scaled for the model;
ready inputs, which are numbers already, by those alone that work on numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lvc.compiler.errors import UsageError, did_you_mean

PRESETS: dict[str, tuple[str, ...]] = {
    "none": (),
    "cifar": ("crop", "flip"),
    "imagenet": ("resized-crop", "flip", "colour"),
}
"""Augmentations by the data sets that they are usual for."""

AUTO = "auto"
_SMALL = 64  # pixels; up to this side an image is one of CIFAR's kind, where a resized crop would leave little


def _crop(height: int, width: int, outside: int) -> Any:
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    fill = {tv_tensors.Mask: outside, "others": 0}
    return v2.RandomCrop((height, width), padding=[max(1, width // 8), max(1, height // 8)], fill=fill)


def _flip(height: int, width: int, outside: int) -> Any:
    from torchvision.transforms import v2

    return v2.RandomHorizontalFlip()


def _resized_crop(height: int, width: int, outside: int) -> Any:
    from torchvision.transforms import v2

    return v2.RandomResizedCrop((height, width), antialias=True)


def _colour(height: int, width: int, outside: int) -> Any:
    from torchvision.transforms import v2

    return v2.ColorJitter(0.4, 0.4, 0.4)


def _rand_augment(height: int, width: int, outside: int) -> Any:
    from torchvision.transforms import v2

    return v2.RandAugment()


def _cutout(height: int, width: int, outside: int) -> Any:
    from torchvision.transforms import v2

    return v2.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0))


@dataclass(frozen=True)
class Step:
    """One augmentation: what makes it for a height, a width and what masks hold outside of an image, and what it works
    on.

    ``sizes`` is set for one that brings a picture of any size to the wanted one, in place of the preprocessing.
    """

    make: Callable[[int, int, int], Any]
    takes_numbers: bool = True
    takes_masks: bool = True
    sizes: bool = False


STEPS: dict[str, Step] = {
    "resized-crop": Step(_resized_crop, sizes=True),
    "crop": Step(_crop),
    "flip": Step(_flip),
    "randaugment": Step(_rand_augment, takes_numbers=False, takes_masks=False),
    "colour": Step(_colour, takes_numbers=False),
    "cutout": Step(_cutout),
}
"""All augmentations, in the order in which they are done."""


def parse_augmentation(names: Sequence[str]) -> tuple[str, ...]:
    """Return the steps that presets and names stand for, in order; `UsageError` with a suggestion for another name."""
    known = [*PRESETS, *STEPS]
    for name in names:
        if name not in known and names != (AUTO,):
            help = did_you_mean(name, known) + "known: " + ", ".join(known)
            raise UsageError(f"there is no augmentation '{name}'", help=help)
    wanted = {step for name in names for step in PRESETS.get(name, (name,))}
    return tuple(step for step in STEPS if step in wanted)


@dataclass(frozen=True)
class Augmentation:
    """Augmentations for pictures that become ``height`` by ``width``; masks of them hold ``outside`` where no picture
    is."""

    steps: tuple[str, ...]
    height: int
    width: int
    outside: int = 0

    @classmethod
    def of(
        cls, names: Sequence[str], size: tuple[int, int] | None, *, has_pictures: bool, outside: int = 0
    ) -> Augmentation:
        """Return what the names ask for; ``auto`` is what suits images of that size.

        `UsageError` for steps that cannot be done: on inputs that are no images, or on ready inputs.
        """
        if tuple(names) == (AUTO,):
            names = () if size is None else ("cifar",) if max(size) <= _SMALL or not has_pictures else ("imagenet",)
        steps = parse_augmentation(names)
        if steps and size is None:
            raise UsageError(f"inputs that are no images cannot be augmented by {steps[0]}", help="give augment=none")
        if not has_pictures and (unfit := [step for step in steps if not STEPS[step].takes_numbers]):
            raise UsageError(
                f"ready inputs cannot be augmented by {unfit[0]}",
                why="it works on pictures, before they are prepared for the model",
                help="give pictures as data, with --preprocess, or leave it out",
            )
        return cls(steps, *(size or (0, 0)), outside)

    @property
    def sizes(self) -> bool:
        """Whether pictures are taken before they have the size that the model takes."""
        return any(STEPS[step].sizes for step in self.steps)

    @cached_property
    def _transforms(self) -> tuple[Any, ...]:
        return tuple(STEPS[step].make(self.height, self.width, self.outside) for step in self.steps)

    def __call__(self, image: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Augment an image ``[C,H,W]``, and a mask ``[...,H,W]`` that belongs to it alike."""
        if mask is None:
            for transform in self._transforms:
                image = transform(image)
            return image, None
        from torchvision import tv_tensors

        if unfit := [step for step in self.steps if not STEPS[step].takes_masks]:
            help = "leave it out; crop, flip and colour take images with their masks"
            raise UsageError(f"images with masks cannot be augmented by {unfit[0]}", help=help)
        if not mask.dtype.is_floating_point:
            mask = mask.long()  # of which each holds what stands outside
        pair = tv_tensors.Image(image), tv_tensors.Mask(mask)
        for transform in self._transforms:
            pair = transform(*pair)
        return pair[0].as_subclass(torch.Tensor), pair[1].as_subclass(torch.Tensor)
