"""The batches of training: which samples, in which order, augmented and mixed how.

Everything random in a step follows from the seed and the number of the step alone, so that training which goes on from
a checkpoint sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

from lvc.compiler.data.access import Access, Target
from lvc.compiler.data.samples import Fit
from lvc.compiler.errors import UsageError
from lvc.passes.training.augmentation import Augmentation

_STRIDE = 1_000_003  # a prime; seeds of steps do not meet those of epochs


@dataclass(frozen=True)
class Mixing:
    """Images mixed in pairs, with their labels: whole (``mixup``) or in rectangles (``cutmix``); 0 for not at all.

    The numbers are the parameters of the beta distributions; with both, each batch is mixed by one of them, drawn
    alike. Sources: Zhang et al., "mixup", 2018; Yun et al., "CutMix", 2019.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(
        self, inputs: torch.Tensor, targets: torch.Tensor | None, classes: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mix a batch; targets ``i64[N]`` become ``f32[N,classes]``."""
        if not self.mixup and not self.cutmix:
            return inputs, targets
        from torchvision.transforms import v2

        ways = [(v2.MixUp, self.mixup), (v2.CutMix, self.cutmix)]
        chosen = [(kind, alpha) for kind, alpha in ways if alpha]
        kind, alpha = chosen[int(torch.randint(len(chosen), ()))]
        labels = torch.zeros(len(inputs), dtype=torch.int64) if targets is None else targets
        mixed, soft = kind(alpha=alpha, num_classes=classes)(inputs, labels)
        return mixed, None if targets is None else soft


@dataclass(frozen=True)
class Feed:
    """The training samples in batches of ``batch``, each in parts of ``micro``."""

    samples: Access
    fit: Fit
    augmentation: Augmentation
    mixing: Mixing
    batch: int
    micro: int
    classes: int
    seed: int
    threads: int

    def __post_init__(self) -> None:
        if len(self.samples) < self.batch:
            raise UsageError(
                f"there are {len(self.samples)} images to train on, and a batch has {self.batch}",
                help=f"give more images, or batch={max(1, len(self.samples) // 2)}",
            )

    @property
    def steps_an_epoch(self) -> int:
        return len(self.samples) // self.batch

    def parts(self, step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Yield the parts of a step, counted from 0: inputs ``[micro,...]`` and what they are to give, if known.

        Called within `randomness` of the step.
        """
        epoch, at = divmod(step, self.steps_an_epoch)
        order = _order(self.seed, epoch, len(self.samples))[at * self.batch : (at + 1) * self.batch]
        for start in range(0, self.batch, self.micro):
            yield self._part(order[start : start + self.micro])

    @contextmanager
    def randomness(self, step: int) -> Iterator[None]:
        """What is drawn within the ``with`` block depends on the step alone; outside nothing changes."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * _STRIDE + step)
            yield

    def _part(self, order: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
        places = [self.samples.places[at] for at in order]
        targets = [self.samples.target(place) for place in places]
        masks = [_mask(target) for target in targets]
        if self.samples.picture is None:
            inputs = [torch.from_numpy(np.array(self.samples.read(place)[0])) for place in places]
            made = [self.augmentation(image, mask) for image, mask in zip(inputs, masks, strict=True)]
            stacked = torch.stack([image for image, _ in made])
        else:
            made = [
                self.augmentation(_to_image(pixels), mask)
                for pixels, mask in zip(self._pictures(places), masks, strict=True)
            ]
            stacked = self._prepare(torch.stack([image for image, _ in made]))
        aims = [mask if mask is not None else target for (_, mask), target in zip(made, targets, strict=True)]
        return self.mixing(stacked, stack_targets(aims), self.classes)

    def _pictures(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """Read pictures; they have the size that the model takes unless the augmentation brings them to it."""
        assert self.samples.picture is not None
        assert self.samples.preprocess is not None
        read = self._pool.map(self.samples.picture, places) if self._pool else map(self.samples.picture, places)
        return iter(read) if self.augmentation.sizes else map(self.samples.preprocess.to_size, read)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor | None:
        return ThreadPoolExecutor(self.threads) if self.samples.decodes and self.threads > 1 else None

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        assert self.samples.preprocess is not None
        planes = self.samples.preprocess.to_planes(images.movedim(1, -1).numpy())
        planes = np.moveaxis(planes, 1, -1) if self.fit.is_channels_last else planes
        return torch.from_numpy(np.ascontiguousarray(planes, self.fit.dtype))


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """In which order the samples of an epoch come: drawn once for all of its steps."""
    generator = torch.Generator().manual_seed((seed + 1) * _STRIDE * _STRIDE + epoch)
    return tuple(torch.randperm(count, generator=generator).tolist())


def stack_targets(targets: Sequence[Target | torch.Tensor]) -> torch.Tensor | None:
    """Stack what samples are to give: classes ``i64[N]`` or arrays ``[N,...]``; None if one has nothing."""
    if any(target is None for target in targets):
        return None
    if isinstance(targets[0], int):
        return torch.tensor(targets, dtype=torch.int64)
    return torch.stack([torch.as_tensor(np.array(target)) for target in targets])


def _mask(target: Target) -> torch.Tensor | None:
    """A target that has a value for each pixel, which has to be augmented with the image."""
    if not isinstance(target, np.ndarray) or target.ndim < 2:
        return None
    return torch.from_numpy(np.array(target))


def _to_image(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)))
