"""A recogniser of text and a spatial transformer, as PyTorch exports them to ONNX, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lvc

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's


class Recogniser(nn.Module):
    """CRNN: columns of convolutional features, two bidirectional LSTMs, and scores of letters and the blank for CTC."""

    def __init__(self, letters: int = 11) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1)),
            *(nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d((4, 2)), nn.Conv2d(16, 16, (4, 1)), nn.ReLU()),
        )
        self.first, self.second = (nn.LSTM(size, 12, bidirectional=True) for size in (16, 24))
        self.scores = nn.Linear(24, letters)

    def forward(self, image: Tensor) -> Tensor:
        columns = self.features(image).squeeze(2).permute(2, 0, 1)
        return self.scores(self.second(self.first(columns)[0])[0]).log_softmax(2)


class Straightener(nn.Module):
    """A spatial transformer: how a picture lies is regressed, and it is sampled upright."""

    def __init__(self, mode: str = "bilinear", padding: str = "zeros", *, corners: bool = False) -> None:
        super().__init__()
        self.mode, self.padding, self.corners = mode, padding, corners
        self.look = nn.Sequential(
            nn.Conv2d(1, 8, 7, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 11 * 11, 16), nn.ReLU()
        )
        self.place = nn.Linear(16, 6)
        with torch.no_grad():
            self.place.weight.mul_(0.5)
            self.place.bias.copy_(torch.tensor([0.9, 0.2, 0.1, -0.2, 0.8, -0.1]))
        self.classify = nn.Conv2d(1, 4, 5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        theta = self.place(self.look(image)).reshape(-1, 2, 3)
        grid = functional.affine_grid(theta, [image.shape[0], 1, 20, 24], align_corners=self.corners)
        upright = functional.grid_sample(
            image, grid, mode=self.mode, padding_mode=self.padding, align_corners=self.corners
        )
        return upright, self.classify(upright).mean((2, 3))


def exported(module: nn.Module, image: Tensor, file: Path) -> Path:
    torch.onnx.export(module.eval(), (image,), str(file), dynamo=False, opset_version=20, input_names=["image"])
    return file


def theirs(file: Path, image: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: image})
    return found


def letters(scores: np.ndarray) -> list[int]:
    """The text of one image by greedy decoding: equal neighbours are one, and blanks are left out."""
    best = scores[:, 0].argmax(1)
    return [int(one) for place, one in enumerate(best) if one and (place == 0 or one != best[place - 1])]


def test_a_recogniser_reads_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = exported(Recogniser(), torch.rand(1, 1, 32, 64), tmp_path / "crnn.onnx")
    run = lvc.load(lvc.compile(str(file)))
    texts = set()
    for seed in range(5):
        image = np.random.default_rng(seed).standard_normal((1, 1, 32, 64)).astype(np.float32) * 3
        found, (wanted,) = run(image), theirs(file, image)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert letters(found) == letters(wanted)
        texts.add(tuple(letters(wanted)))
    assert len(texts) > 1


@pytest.mark.parametrize(
    ("mode", "padding", "corners"),
    [("bilinear", "zeros", False), ("bilinear", "border", True), ("nearest", "reflection", False)],
)
def test_a_spatial_transformer_sees_the_same(tmp_path: Path, mode: str, padding: str, corners: bool) -> None:
    torch.manual_seed(1)
    module = Straightener(mode, padding, corners=corners)
    file = exported(module, torch.rand(1, 1, 28, 28), tmp_path / "stn.onnx")
    run = lvc.load(lvc.compile(str(file)))
    for seed in range(3):
        image = np.random.default_rng(seed).random((1, 1, 28, 28), np.float32)
        found, wanted = run(image), theirs(file, image)
        assert isinstance(found, tuple)
        assert wanted[0].std() > 0.1
        for ours, other in zip(found, wanted, strict=True):
            away = np.abs(ours - other) > 1e-4
            assert away.mean() <= (0.01 if mode == "nearest" else 0)
