"""Fourier transforms as products of matrices, and what is said of complex numbers elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import lvc
from lvc.compiler.errors import CompileError
from lvc.compiler.load import from_module, load
from lvc.compiler.load.normalise.builder import Unsupported
from lvc.compiler.load.normalise.spectral import dft

FORMS = {  # by whether inverse, one-sided, and of real numbers
    (False, False, True): torch.fft.fft,
    (False, False, False): torch.fft.fft,
    (True, False, True): torch.fft.ifft,
    (True, False, False): torch.fft.ifft,
    (False, True, True): torch.fft.rfft,
    (True, True, False): torch.fft.irfft,
}


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from([0, 1, 2]), st.sampled_from(list(FORMS)))
def test_transforms_are_those_of_fft(size: int, length: int, axis: int, form: tuple[bool, bool, bool]) -> None:
    inverse, onesided, is_real = form
    shape = [2, 3, 4]
    shape[axis] = size
    random = torch.Generator().manual_seed(size * 31 + length)
    signal = torch.randn(*shape, dtype=torch.float32 if is_real else torch.complex64, generator=random)
    parts = signal[..., None] if is_real else torch.view_as_real(signal)
    wanted = FORMS[form](signal, length, axis).resolve_conj()
    found = dft(parts, axis, length, inverse=inverse, onesided=onesided)
    target = wanted[..., None] if inverse and onesided else torch.view_as_real(wanted)
    torch.testing.assert_close(found, target, rtol=1e-5, atol=2e-6 * max(1.0, float(target.abs().max())))


def test_long_lines_are_refused() -> None:
    assert dft(torch.zeros(1, 4096, 1), 1, 4096, inverse=False, onesided=True).shape == (1, 2049, 2)
    with pytest.raises(Unsupported, match="lines of 8192, whose matrix is too large"):
        dft(torch.zeros(1, 8192, 1), 1, 8192, inverse=False, onesided=False)


class GlobalFilter(nn.Module):
    """A product with a filter in two axes of frequencies, as GFNet has it, of real and imaginary parts."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(3, 6, 4, 2, generator=torch.Generator().manual_seed(0)))

    def forward(self, image: Tensor) -> Tensor:
        lines = dft(image[..., None], 3, 6, inverse=False, onesided=True)
        a, b = dft(lines, 2, 6, inverse=False, onesided=False).unbind(-1)
        c, d = self.filter.unbind(-1)
        product = torch.stack([a * c - b * d, a * d + b * c], -1)
        lines = dft(product, 2, 6, inverse=True, onesided=False)
        return dft(lines, 3, 6, inverse=True, onesided=True)[..., 0]


def test_a_filter_of_frequencies_is_compiled() -> None:
    module, image = GlobalFilter().eval(), torch.randn(1, 3, 6, 6)
    spectrum = torch.fft.rfft2(image) * torch.view_as_complex(module.filter.detach())
    wanted = torch.fft.irfft2(spectrum, s=(6, 6)).numpy()
    found = lvc.load(lvc.compile(from_module(module, image)))(image.numpy())
    np.testing.assert_allclose(found, wanted, atol=1e-5)


class Filter(nn.Module):
    """GFNet's filter: a product in two axes of frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4, 5, 2, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        found = torch.fft.rfft2(x, dim=(1, 2), norm="ortho") * torch.view_as_complex(self.weight)
        return torch.fft.irfft2(found, s=(6, 6), dim=(1, 2), norm="ortho")


class Convolution(nn.Module):
    """LaMa's spectral transform: a convolution of real and imaginary parts as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = torch.fft.rfftn(x, dim=(-2, -1), norm="ortho")
        parts = torch.stack((found.real, found.imag), -1).permute(0, 1, 4, 2, 3)
        made = self.conv(parts.reshape(1, 12, *parts.shape[3:])).relu()
        made = made.view(1, -1, 2, *made.shape[2:]).permute(0, 1, 3, 4, 2).contiguous()
        return torch.fft.irfftn(torch.complex(made[..., 0], made[..., 1]), s=x.shape[-2:], dim=(-2, -1), norm="ortho")


class Mixer(nn.Module):
    """AFNO's: products with small matrices of some frequencies, and what else is done to complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = torch.fft.rfft2(x, dim=(1, 2), norm="forward").reshape(1, 6, 4, 5)
        a, b = self.weight
        real, imag = found.real @ a - found.imag @ b, found.imag @ a + found.real @ b
        made = torch.view_as_complex(torch.stack([real.relu(), imag.relu()], -1))
        made = torch.cat([made[:, :, :2] * found[:, :, :2], found[:, :, 2:] / 2 + x[:, :, :2] - 1.5], 2)
        made *= 0.5
        made = made * (0.3 - 2j) + x[:, :, :4] * 1j - (1 - 1j)
        shifted = torch.fft.ifftshift(torch.fft.fftshift(made - found, dim=(1, 2)), dim=(1,))
        back = torch.fft.irfft2(made, dim=(1, 2), norm="forward")
        whole = torch.fft.ifft2(torch.fft.fftn(x, dim=(1, 2)).conj().resolve_conj(), dim=(1, 2), norm="ortho")
        return back, shifted.abs(), torch.view_as_real(whole.transpose(1, 2))


@pytest.mark.parametrize(
    ("kind", "shape"), [(Filter, (1, 6, 6, 5)), (Convolution, (1, 6, 7, 8)), (Mixer, (1, 6, 6, 5))]
)
def test_models_of_frequencies_are_what_eager_makes_of_them(
    tmp_path: Path, kind: type[nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(1)
    module, x = kind().eval(), torch.randn(shape)
    with torch.no_grad():
        wanted = module(x)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "net.pt2")
    built = lvc.load(lvc.compile(from_module(module, x)))(x.numpy())
    runs = [from_module(module, x)(x.numpy()), load(str(tmp_path / "net.pt2"))(x.numpy())]
    for found in (*runs, built if isinstance(built, tuple) else (built,)):
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)


def test_complex_weights_are_two_tensors() -> None:
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))
            self.register_buffer("start", torch.randn(3, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.irfft(torch.fft.rfft(x) * self.weight - self.start)

    module, x = Weighed().eval(), torch.randn(2, 4, 4)
    model = from_module(module, x)
    assert model.parameters >= 24 + 3
    np.testing.assert_allclose(model(x.numpy())[0], module(x).detach().numpy(), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["fft", "ifft", "rfft", "irfft", "fft2", "ifft2", "rfft2", "irfft2", "rfftn", "irfftn", "ifftn"]),
    st.sampled_from([None, "ortho", "forward"]),
    st.integers(2, 7),
    st.booleans(),
)
def test_every_transform_of_torch(name: str, norm: str | None, size: int, is_sized: bool) -> None:
    transform = getattr(torch.fft, name)
    options: dict[str, Any] = {"norm": norm}
    if name.endswith(("2", "n")):
        options |= {"dim": (1, -1)} | ({"s": (size, size + 1)} if is_sized else {})
    else:
        options |= {"dim": 1} | ({"n": size} if is_sized else {})

    class Transform(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made = transform(x if name.startswith("rfft") else torch.complex(x, x.flip(1) - 0.5), **options)
            return torch.view_as_real(made) if made.is_complex() else made

    x = torch.randn(2, 5, 3, size, generator=torch.Generator().manual_seed(size))
    (found,), wanted = from_module(Transform().eval(), x)(x.numpy()), Transform()(x).numpy()
    np.testing.assert_allclose(found, wanted, atol=5e-6 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (torch.fft.fft, "an output of the model is complex"),
        (lambda x: (torch.fft.fft(x) @ torch.fft.fft(x)).real, "cannot express"),
        (lambda x: (1 / torch.fft.fft(x)).real, "cannot express"),
        (lambda x: torch.fft.fft(x, norm="ortho").angle(), "cannot express"),
    ],
)
def test_what_is_not_known_of_complex_numbers_is_refused(forward: Callable[[Tensor], Tensor], message: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    with pytest.raises(CompileError, match=message) as caught:
        from_module(Net().eval(), torch.randn(1, 4, 4))
    assert "real" in caught.value.help
