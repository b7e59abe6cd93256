"""Photographs for small detectors, and what it takes that two found the same in them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SIZE = 56, 72


def pictures() -> list[np.ndarray]:
    """Photographs where there are any, and noise."""
    folder = Path(os.environ.get("LVC_TEST_ASSETS", "../shared/assets")) / "coco" / "images"
    found = [np.random.default_rng(seed).random((1, 3, *SIZE), np.float32) for seed in range(2)]
    for file in sorted(folder.glob("*.jpg"))[:5]:
        from PIL import Image

        with Image.open(file) as image:
            small_one = np.asarray(image.convert("RGB").resize(SIZE[::-1]), np.float32) / 255
        found.append(np.ascontiguousarray(small_one.transpose(2, 0, 1)[None]))
    return found


def check(names: Sequence[str], found: Sequence[np.ndarray], wanted: Mapping[str, np.ndarray]) -> int:
    """Demand boxes within a hundredth of a pixel, with their classes; return how many there are.

    Those of one score may be in another order: eager PyTorch leaves it open which of them comes first.
    """
    ours, theirs = dict(zip(names, found, strict=True)), wanted
    assert ours.keys() == theirs.keys()
    for name, part in theirs.items():
        assert (ours[name].shape, ours[name].dtype) == (part.shape, part.dtype)
    np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=1e-4)
    if len(theirs["boxes"]):
        apart = np.abs(ours["boxes"][:, None] - theirs["boxes"]).max(2)
        apart[ours["labels"][:, None] != theirs["labels"]] = np.inf
        assert max(apart.min(0).max(), apart.min(1).max()) < 1e-2
        if "masks" in theirs:
            inside, wanted_inside = ours["masks"][apart.argmin(0)] > 0.5, theirs["masks"] > 0.5
            assert (inside & wanted_inside).sum() >= 0.999 * (inside | wanted_inside).sum()
        if "keypoints" in theirs:
            same = apart.argmin(0)
            np.testing.assert_allclose(ours["keypoints_scores"][same], theirs["keypoints_scores"], 1e-3, 1e-3)
            assert np.abs(ours["keypoints"][same] - theirs["keypoints"]).max() < 1e-2
    return len(theirs["labels"])
