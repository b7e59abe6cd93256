"""How much different there is in a data set: what is learned from one image, or from blank ones, holds for no other."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

FEW = 8

_CURE = "give a few dozen images like those that the model will see"


@dataclass
class Variety:
    """The images of a data set as they come, by their hashes, so that copies of one count once."""

    hashes: set[int] = field(default_factory=set)
    is_blank: bool = True

    def add(self, batch: torch.Tensor) -> None:
        self.hashes |= {hash(image.numpy().tobytes()) for image in batch}
        rows = batch.reshape(len(batch), -1)
        self.is_blank = self.is_blank and bool((rows == rows[:, :1]).all())

    def warning(self) -> str:
        """Return why the data may be too little to calibrate by; empty if nothing speaks against it."""
        count = len(self.hashes)
        images = "1 image" if count == 1 else f"{count} different images"
        if self.is_blank:
            return f"the data is blank: {images}, one value throughout. Ranges of it fit nothing else; {_CURE}"
        if count < FEW:
            return f"the calibration rests on {images}, and what others hold beyond their ranges is cut off; {_CURE}"
        return ""
