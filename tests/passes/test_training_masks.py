"""Masks are augmented with their images, and hold the class that does not count where no image is."""

from __future__ import annotations

import pytest
import torch

from lvc.compiler.errors import UsageError
from lvc.passes.distil import Distil
from lvc.passes.finetune import Finetune
from lvc.passes.training.augmentation import Augmentation


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64])
def test_outside_a_crop_no_class_is_taught(dtype: torch.dtype) -> None:
    image, mask = torch.full((3, 16, 16), 9, dtype=torch.uint8), torch.full((16, 16), 3, dtype=dtype)
    crop = Augmentation.of(("crop",), (16, 16), has_pictures=True, outside=255)
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        cropped, cut = crop(image, mask)
        assert cut is not None
        assert torch.equal(cut, torch.where(cropped[0] == 0, 255, 3))
        seen |= set(cut.unique().tolist())
    assert seen == {3, 255}


def test_maps_of_numbers_are_zero_outside() -> None:
    crop = Augmentation.of(("crop",), (16, 16), has_pictures=False)
    torch.manual_seed(1)
    cropped, cut = crop(torch.ones(3, 16, 16), torch.full((2, 16, 16), 0.5))
    assert cut is not None
    assert torch.equal(cut, torch.where(cropped[:1] == 0, 0.0, 0.5).expand(2, 16, 16))


def test_the_loss_says_what_does_not_count() -> None:
    assert Finetune(loss="segmentation").outside == 255
    assert Finetune(loss="segmentation{ignore=7}").outside == 7
    assert Distil(loss="segmentation{ignore=7}").outside == 7
    assert Finetune().outside == 0


def test_what_cannot_move_a_mask_is_refused() -> None:
    augmentation = Augmentation.of(("randaugment",), (16, 16), has_pictures=True)
    with pytest.raises(UsageError, match="images with masks cannot be augmented by randaugment"):
        augmentation(torch.zeros(3, 16, 16, dtype=torch.uint8), torch.zeros(16, 16))
