"""Attention in one pass by the emulated tensor cores: no further from double precision than the graph, whose weights
are rounded where the kernel's are."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from cuda_on_cpu import Emulated, EmulationError
from gpu_models import build, lowered, needs_nvrtc, spills
from torch import nn

import lvc
from lvc.backends.tvm.gpu.estimate import estimate
from lvc.backends.tvm.gpu.gpus import CHIPS
from lvc.backends.tvm.gpu.kernels.attention_block import Attention
from lvc.backends.tvm.gpu.kernels.matrix_factors import Halves
from lvc.compiler.artefact import Artefact
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

pytestmark = needs_nvrtc
LARGE_ERROR = 1.05  # of the kernel, beside the graph's


class Scaled(nn.Module):
    """``scaled_dot_product_attention``, with a mask or not."""

    def __init__(self, mask: torch.Tensor | None = None, factor: float = 1) -> None:
        super().__init__()
        self.mask = mask
        self.factor = factor

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        mask = self.mask if self.mask is None or self.mask.dtype is torch.bool else self.mask.to(query.dtype)
        return nn.functional.scaled_dot_product_attention(query * self.factor, key, value, mask)


class ByHand(nn.Module):
    """A bias for scores, whose rows may be without a key."""

    def __init__(self, bias: torch.Tensor) -> None:
        super().__init__()
        self.bias = nn.Buffer(bias)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.softmax(query @ key.transpose(-1, -2) / 4 + self.bias, -1) @ value


class OwnProjections(nn.Module):
    """As transformers of images have it: queries, keys and values in one tensor, heads moved behind."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made, _ = self.attention(x, x, x, need_weights=False)
        return made


def model_of(network: nn.Module, *given: torch.Tensor, dtype: str = "float16") -> Model:
    model, _ = Pipeline.parse("O2").run(lvc.from_module(network.eval(), given), Workspace(threads=1))
    return lowered(model, dtype)


def random(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def operands(*size: int) -> list[torch.Tensor]:
    batch, heads, queries, keys, depth, width = size
    return random((batch, heads, queries, depth), (batch, heads, keys, depth), (batch, heads, keys, width))


def kinds(artefact: Artefact) -> list[str]:
    return [type(getattr(step.schedule, "problem", None)).__name__ for step in artefact.parts.program.steps]


def check(network: nn.Module, *given: torch.Tensor, dtype: str = "float16", target: str = "cuda:sm_80") -> Emulated:
    """The error against double precision is that of the graph, and what is no number in it is none."""
    model = model_of(network, *given, dtype=dtype)
    emulated = Emulated(build(model, target))
    arrays = [tensor.numpy() for tensor in given]
    (found,), (graph,) = emulated(*arrays), model(*arrays)
    with torch.no_grad():
        exact = network.double()(*(tensor.double() for tensor in given)).numpy()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    errors = [np.sqrt(np.nanmean((made - exact) ** 2)) for made in (found, graph)]
    assert 0 < errors[0] <= LARGE_ERROR * errors[1]
    assert kinds(emulated.artefact).count("Attention") == 1
    assert not spills(emulated)
    return emulated


SIZES = [
    (1, 2, 16, 16, 16, 16),
    (1, 2, 40, 70, 64, 64),
    (1, 3, 33, 197, 64, 64),
    (2, 2, 20, 19, 24, 40),
    (1, 1, 9, 130, 128, 96),
    (1, 2, 17, 33, 13, 7),
]


@pytest.mark.parametrize(("dtype", "target"), [("float16", 75), ("float16", 80), ("bfloat16", 80)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(size: tuple[int, ...], dtype: str, target: int) -> None:
    """Rows, keys, terms and columns that end within a tile; one chunk of keys and several."""
    emulated = check(Scaled(), *operands(*size), dtype=dtype, target=f"cuda:sm_{target}")
    assert all(count.conflict_free > 0.9 for count in emulated.counts.values())


@pytest.mark.parametrize("warps", [1, 2, 4])
def test_every_number_of_warps(warps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvc.backends.tvm.gpu.kernels.attention.WARPS", (warps,))
    check(Scaled(), *operands(1, 2, 70, 70, 32, 32))


def test_heads_are_read_and_written_where_they_lie() -> None:
    """Nothing is moved between the products with weights but what they themselves move."""
    emulated = check(OwnProjections(64, 4), *random((2, 21, 64)))
    assert kinds(emulated.artefact).count("TensorBatchMatmul") == 0
    (problem,) = (step.schedule.problem for step in emulated.parts.program.steps if "matmul" in " ".join(step.nodes))
    assert isinstance(problem, Attention)


def test_masks() -> None:
    """A causal one, and a bias for each score."""
    given = operands(1, 2, 40, 150, 32, 32)
    check(Scaled(torch.ones(40, 150, dtype=torch.bool).tril()), *given)
    check(Scaled(random((40, 150))[0]), *given)


def test_chunks_and_rows_without_a_key() -> None:
    """In front of other chunks, behind them, and everywhere, which makes what is no number."""
    bias = torch.full((40, 150), -torch.inf)
    bias[:20, 100:], bias[20:30, :40] = 0, 1
    check(ByHand(bias), *operands(1, 2, 40, 150, 32, 32), dtype="bfloat16")


def test_scores_far_beyond_what_powers_can_be() -> None:
    check(Scaled(factor=300), *operands(1, 1, 20, 100, 32, 32), dtype="bfloat16")


@pytest.mark.parametrize("size", [(1, 1, 5, 40, 16, 16), (1, 1, 40, 5, 16, 16), (1, 1, 16, 16, 136, 16)], ids=str)
def test_what_is_small_or_wide_is_made_by_products(size: tuple[int, ...]) -> None:
    assert "Attention" not in kinds(build(model_of(Scaled(), *operands(*size))))


class Twice(nn.Module):
    """Weights that somebody else reads."""

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = torch.softmax(query @ key.transpose(-1, -2), -1)
        return weights @ value, weights


def test_weights_that_are_read_elsewhere_and_float32_are_made_by_products() -> None:
    given = operands(1, 2, 16, 16, 16, 16)
    assert "Attention" not in kinds(build(model_of(Twice(), *given)))
    single, _ = Pipeline.parse("O2").run(lvc.from_module(Scaled().eval(), tuple(given)), Workspace(threads=1))
    assert "Attention" not in kinds(build(single))


SABOTAGE: dict[str, Callable[[str], str]] = {
    "a score of another row": lambda text: re.sub(r"(LVC_EXCHANGE\(\w+, 0, peak, 0, )1", r"\g<1>8", text),
    "sums of another lane": lambda text: re.sub(r"(LVC_EXCHANGE\(\w+, 0, total, 0, )2", r"\g<1>4", text),
    "values that are not transposed": lambda text: text.replace("LVC_TURNED(", "LVC_MATRICES("),
    "keys of another matrix": lambda text: re.sub(
        r"(LVC_MATRICES\(words, 0, keys.*?)\(\(\(thread % 32\) / 8\) % 2\)", r"\1(1 - ((thread % 32) / 8) % 2)", text
    ),
    "sums that are not scaled": lambda text: re.sub(
        r"LVC_STORE\(sums, (.*?), \(LVC_LOAD\(sums, .*?\) \* .*\)\);", r"", text
    ),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_wrong_lane_is_found(name: str) -> None:
    given, changed = operands(1, 1, 32, 150, 32, 32), []

    def edit(text: str) -> str:
        made = SABOTAGE[name](text)
        changed.append(made != text)
        return made

    model = model_of(Scaled(factor=3), *given)
    arrays = [tensor.numpy() for tensor in given]
    (found,), (wanted,) = Emulated(build(model), edit)(*arrays), model(*arrays)
    assert any(changed)
    assert not np.allclose(found, wanted, rtol=0, atol=4 * 2**-11 * np.abs(wanted).max())


@pytest.mark.parametrize("number", range(3))
def test_a_barrier_that_is_missing_is_found(number: int) -> None:
    def edit(text: str) -> str:
        if "LVC_EXCHANGE" not in text:
            return text
        start = [found.start() for found in re.finditer(r"LVC_BARRIER\(\);", text)][number]
        return text[:start] + text[start:].replace("LVC_BARRIER();", "", 1)

    given = operands(1, 1, 32, 150, 32, 32)
    with pytest.raises(EmulationError, match="race: shared"):
        Emulated(build(model_of(Scaled(), *given)), edit)(*(tensor.numpy() for tensor in given))


def test_more_blocks_of_fewer_rows_are_made_where_there_are_few_heads() -> None:
    """The count of cycles by which warps are chosen: the fewest rows in a block for one image on a large chip."""
    model = model_of(Scaled(), *operands(1, 12, 197, 197, 64, 64))
    (problem,) = (step.schedule.problem for step in build(model).parts.program.steps if step.name == "matmul")
    gpu = CHIPS["a100"]

    def cycles(warps: int) -> float:
        one = Attention((1, 12), 197, 197, 64, 64, (0, 1, 2, 3), Halves("float16"), warps)
        return one.launch_cycles(gpu, one.blocks, one.resident(gpu))

    assert problem.warps == min((4, 2, 1), key=cycles)


def test_the_estimate_counts_products_and_powers() -> None:
    model = model_of(Scaled(), *operands(4, 12, 197, 197, 64, 64))
    found = estimate(build(model, "cuda:a100").parts, {node.name: macs(node) for node in calls(model.module.graph)})
    (kernel,) = (one for one in found.kernels if one.kind == "Attention")
    assert kernel.macs == 2 * 4 * 12 * 197 * 197 * 64
    assert 0.05 < kernel.share < 1
