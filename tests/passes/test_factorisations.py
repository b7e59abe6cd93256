"""Every way to factor a layer: exact at full ranks, near below them, in layers of such shapes as its outline says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvc.compiler.errors import CompileError
from lvc.passes.factorisations import cp
from lvc.passes.low_rank.factorisation import METHODS, Factorisation
from lvc.passes.low_rank.kernel import Kernel, macs, run
from lvc.passes.low_rank.statistics import Statistics

FEW = settings(max_examples=25, derandomize=True, deadline=None)
SIZE = (9, 8)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    made, read = groups * draw(st.integers(1, 5)), draw(st.integers(1, 5))
    window = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    stride, padding, dilation = (tuple(draw(st.integers(*ends)) for _ in "hw") for ends in ((1, 2), (0, 2), (1, 2)))
    extra = tuple(draw(st.integers(0, step - 1)) for step in stride) if draw(st.booleans()) else None
    weight = drawn(draw(st.integers(0, 9)), made, read, *window)
    return Kernel(weight, stride, padding, dilation, groups, extra)  # type: ignore[arg-type]


def statistics(kernel: Kernel, images: torch.Tensor) -> Statistics:
    def covariance(values: torch.Tensor) -> torch.Tensor:
        return torch.cov(values.movedim(1, 0).flatten(1)).reshape(values.shape[1], values.shape[1])

    return Statistics(covariance(images), covariance(kernel.apply(images)))


def error(factors: tuple[Kernel, ...], kernel: Kernel, images: torch.Tensor) -> float:
    wanted = kernel.apply(images)
    return float((run(factors, images) - wanted).square().mean() / wanted.square().mean())


@pytest.mark.parametrize("name", METHODS.names())
@FEW
@given(kernel=kernels(), with_data=st.booleans())
def test_full_ranks_are_exact_and_the_outline_tells_the_truth(name: str, kernel: Kernel, with_data: bool) -> None:
    method = METHODS.parse(name)
    if method.refusal(kernel):
        return
    images = drawn(1, 3, kernel.inputs, *SIZE)
    known = statistics(kernel, images) if with_data else None
    ranks = method.full_ranks(kernel)
    factors = method.factor(kernel, ranks, known)
    assert error(factors, kernel, images) < 1e-16
    outline = method.outline(kernel, ranks)
    assert [part.weight.shape for part in outline] == [part.weight.shape for part in factors]
    assert macs(outline, SIZE) == macs(factors, SIZE)


@pytest.mark.parametrize("name", METHODS.names())
def test_more_rank_is_less_error(name: str) -> None:
    method = METHODS.parse(name)
    window = (1, 1) if name == "svd" else (3, 3)
    kernel = Kernel(drawn(2, 12, 10, *window), padding=(1, 1))
    full, images = method.full_ranks(kernel), drawn(3, 4, 10, *SIZE)
    errors = [
        error(method.factor(kernel, tuple(max(1, r * part // 4) for r in full)), kernel, images) for part in (1, 2, 3)
    ]
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[0] < 1


@pytest.mark.parametrize("name", ["svd", "channel-svd", "spatial-svd", "tucker2", "cp"])
def test_data_make_the_result_nearer(name: str) -> None:
    """Channels that vary little, or together, need no rank of their own."""
    method = METHODS.parse(name)
    window = (1, 1) if name == "svd" else (3, 3)
    kernel = Kernel(drawn(4, 16, 12, *window), padding=(window[0] // 2, window[1] // 2))
    mixed = drawn(5, 12, 12) * torch.linspace(0, 1, 12, dtype=torch.float64).pow(4)
    images = torch.einsum("oi,nihw->nohw", mixed, drawn(6, 16, 12, *SIZE))
    ranks = tuple(max(1, r // 4) for r in method.full_ranks(kernel))
    plain = error(method.factor(kernel, ranks), kernel, images)
    assert error(method.factor(kernel, ranks, statistics(kernel, images)), kernel, images) < 0.8 * plain


def test_a_layer_of_known_rank_is_found() -> None:
    for name, kernel in (
        ("channel-svd", Kernel(torch.einsum("or,rihw->oihw", drawn(1, 8, 2), drawn(2, 2, 6, 3, 3)))),
        ("spatial-svd", Kernel(torch.einsum("orw,rih->oihw", drawn(1, 8, 2, 3), drawn(2, 2, 6, 3)))),
        ("cp", Kernel(torch.einsum("or,ir,hr,wr->oihw", *(drawn(n, n, 2) for n in (8, 6, 3, 4))))),
        ("depthwise-separable", Kernel(torch.einsum("oir,irhw->oihw", drawn(1, 8, 6, 2), drawn(2, 6, 2, 3, 3)))),
    ):
        method: Factorisation = METHODS.parse(name)
        assert error(method.factor(kernel, (2,)), kernel, drawn(9, 2, 6, *SIZE)) < 1e-6, name


def test_terms_that_cancel_each_other_are_held_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of two terms come ever nearer to this tensor of rank 3, by terms that grow and cancel each other."""
    first, second = torch.eye(2, dtype=torch.float64)
    orders = (first, first, second), (first, second, first), (second, first, first)
    whole = torch.stack([torch.einsum("o,i,h->oih", *parts) for parts in orders]).sum(0)
    kernel = Kernel(whole[..., None])
    monkeypatch.setattr(cp, "_LEAST_GAIN", -1.0)
    monkeypatch.setattr(cp, "_TURNS", 300)
    monkeypatch.setattr(cp, "_MOST_CANCELLATION", 7.0)
    factors = METHODS.parse("cp").factor(kernel, (2,))
    assert 1e-5 < error(factors, kernel, drawn(1, 4, 2, *SIZE)) < 0.1, "the ridge holds them"
    monkeypatch.setattr(cp, "_RIDGES", (0.0,))
    with pytest.raises(CompileError, match="cp of rank 2 is degenerate"):
        METHODS.parse("cp").factor(kernel, (2,))
