"""How much different there is in a data set: what is learned from one image, or from blank ones, holds for no other."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

import torch

from lvc.compiler.pipeline.ranks import Ranks

FEW = 8

_DIGEST = 8  # bytes

_CURE = "give a few dozen images like those that the model will see"


@dataclass
class Variety:
    """The images of a data set as they come, by their hashes, so that copies of one count once."""

    hashes: set[bytes] = field(default_factory=set)
    is_blank: bool = True

    def add(self, batch: torch.Tensor) -> None:
        self.hashes |= {blake2b(image.numpy().tobytes(), digest_size=_DIGEST).digest() for image in batch}
        rows = batch.reshape(len(batch), -1)
        self.is_blank = self.is_blank and bool((rows == rows[:, :1]).all())

    def join(self, ranks: Ranks) -> None:
        """Take in the images that all processes saw."""
        told = ranks.collect(bytes([self.is_blank]) + b"".join(sorted(self.hashes)))
        self.is_blank = all(part[0] for part in told)
        self.hashes = {part[at : at + _DIGEST] for part in told for at in range(1, len(part), _DIGEST)}

    def warning(self) -> str:
        """Return why the data may be too little to calibrate by; empty if nothing speaks against it."""
        count = len(self.hashes)
        images = "1 image" if count == 1 else f"{count} different images"
        if self.is_blank:
            return f"the data is blank: {images}, one value throughout. Ranges of it fit nothing else; {_CURE}"
        if count < FEW:
            return f"the calibration rests on {images}, and what others hold beyond their ranges is cut off; {_CURE}"
        return ""
