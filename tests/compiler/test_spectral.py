"""Fourier transforms as products of matrices, and what is said of complex numbers elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import lvc
from lvc.compiler.errors import CompileError
from lvc.compiler.load import from_module
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


def test_complex_numbers_are_refused_with_a_way_out() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(x) * 2)

    with pytest.raises(CompileError, match="cannot express") as caught:
        from_module(Spectrum().eval(), torch.zeros(1, 3, 8, 8))
    assert "DFT" in caught.value.help
