"""The batches of training: which samples, in which order, augmented and mixed how.

Everything random in a step follows from the seed, the number of the step and the place of an image in its batch, so
that training which goes on from a checkpoint sees what it would have seen, and several processes see the shares of the
batch that one would see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

import numpy as np
import torch

from lvc.compiler.data.access import Access, Target
from lvc.compiler.data.samples import Fit
from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.passes.training.augmentation import Augmentation

_STRIDE = 1_000_003  # a prime


@dataclass(frozen=True)
class Mixing:
    """Images mixed in pairs, with their labels: whole (``mixup``) or in rectangles (``cutmix``); 0 for not at all.

    The numbers are the parameters of the beta distributions; with both, each batch is mixed by one of them, drawn
    alike. Sources: Zhang et al., "mixup", 2018; Yun et al., "CutMix", 2019.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def __call__(
        self, inputs: torch.Tensor, targets: torch.Tensor | None, classes: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mix a batch; targets ``i64[N]`` become ``f32[N,classes]``."""
        if not self:
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
    """The training samples in batches of ``batch``, each in parts of ``micro``, of which each of the ``ranks`` has a
    share."""

    samples: Access
    fit: Fit
    augmentation: Augmentation
    mixing: Mixing
    batch: int
    micro: int
    classes: int
    seed: int
    threads: int
    ranks: Ranks = ALONE

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
        """Yield this process's share of each part of a step, counted from 0: inputs ``[micro / ranks,...]`` and what
        they are to give, if known.

        Called within `randomness`. What is drawn after a part was given is the same in all processes.
        """
        epoch, at = divmod(step, self.steps_an_epoch)
        order = _order(self.seed, epoch, len(self.samples))[at * self.batch : (at + 1) * self.batch]
        for start in range(0, self.batch, self.micro):
            yield self._part(step, start, order[start : start + self.micro])

    @contextmanager
    def randomness(self) -> Iterator[None]:
        """What is drawn within the ``with`` block changes nothing outside."""
        with torch.random.fork_rng(devices=[]):
            yield

    def _part(self, step: int, start: int, order: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
        own = self.ranks.share(len(order))
        partner = 1 if self.mixing else 0  # an image is mixed with the one before it, which may be of another process
        chosen = [at % len(order) for at in range(own.start - partner, own.stop)]
        stacked, targets = self._augmented([order[at] for at in chosen], [(step, start + at) for at in chosen])
        torch.default_generator.manual_seed(_seed(self.seed, step, start, "part"))
        mixed, aims = self.mixing(stacked, targets, self.classes)
        return mixed[partner:], aims if aims is None else aims[partner:]

    def _augmented(
        self, order: Sequence[int], drawn: Sequence[tuple[int, int]]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        places = [self.samples.places[at] for at in order]
        targets = [self.samples.target(place) for place in places]
        masks = [_mask(target) for target in targets]
        made: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        for image, mask, place in zip(self._images(places), masks, drawn, strict=True):
            torch.default_generator.manual_seed(_seed(self.seed, *place))
            made.append(self.augmentation(image, mask))
        stacked = torch.stack([image for image, _ in made])
        aims = [mask if mask is not None else target for (_, mask), target in zip(made, targets, strict=True)]
        return stacked if self.samples.picture is None else self._prepare(stacked), stack_targets(aims)

    def _images(self, places: Sequence[int]) -> Iterator[torch.Tensor]:
        """Read ready inputs or pictures, ``[C,H,W]``."""
        if self.samples.picture is None:
            return (torch.from_numpy(np.array(self.samples.read(place)[0])) for place in places)
        return map(_to_image, self._pictures(places))

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


def _seed(*drawn: int | str) -> int:
    """A seed for what is drawn at one place."""
    return int.from_bytes(blake2b(repr(drawn).encode(), digest_size=7).digest())


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
    return torch.stack([x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x)) for x in targets])


def _mask(target: Target) -> torch.Tensor | None:
    """A target that has a value for each pixel, which has to be augmented with the image."""
    if not isinstance(target, np.ndarray) or target.ndim < 2:
        return None
    return torch.from_numpy(np.array(target))


def _to_image(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)))
