"""Each synonym reaches its one spelling in the dialect, and computes what eager PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from traced import draw, op_names, traced

from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.pipeline.pipeline import Pipeline

IMAGE, MATRIX, SIGNAL = (1, 8, 6, 6), (4, 6), (1, 8, 9)
HEADS = (2, 3, 4, 5)

Case = tuple[Callable[..., Any], list[tuple[int, ...]], str]

MOVEMENT: dict[str, Case] = {
    "view": (lambda x: x.view(8, 36), [IMAGE], "reshape"),
    "flatten": (lambda x: x.flatten(1), [IMAGE], "reshape"),
    "squeeze": (lambda x: x.mean((2, 3), True).squeeze(), [IMAGE], "mean reshape"),
    "squeeze-dim": (lambda x: x[:, :1].squeeze(1), [IMAGE], "slice reshape"),
    "unsqueeze": (lambda x: x.unsqueeze(-1), [MATRIX], "reshape"),
    "unflatten": (lambda x: x.unflatten(1, (2, 4)), [IMAGE], "reshape"),
    "transpose": (lambda x: x.transpose(1, -1), [IMAGE], "permute"),
    "t": (lambda x: x.t(), [MATRIX], "permute"),
    "T": (lambda x: x.T, [MATRIX], "permute"),
    "mT": (lambda x: x.mT, [IMAGE], "permute"),
    "swapaxes": (lambda x: x.swapaxes(0, 1), [MATRIX], "permute"),
    "movedim": (lambda x: x.movedim((1, 2), (3, 1)), [IMAGE], "permute"),
    "chunk": (lambda x: x.chunk(3, 1), [IMAGE], "slice slice slice"),
    "split": (lambda x: x.split(3, 1), [IMAGE], "slice slice slice"),
    "split-sizes": (lambda x: x.split([1, 7], 1), [IMAGE], "slice slice"),
    "tensor-split": (lambda x: x.tensor_split(3, 1), [IMAGE], "slice slice slice"),
    "unbind": (lambda x: x[:2].unbind(0), [MATRIX], "slice slice reshape slice reshape"),
    "select": (lambda x: x[:, -1], [IMAGE], "slice reshape"),
    "narrow": (lambda x: x.narrow(1, 2, 3), [IMAGE], "slice"),
    "slices": (lambda x: x[:, 1:-1, ::2, -100:100], [IMAGE], "slice slice"),
    "stack": (lambda x, y: torch.stack((x, y), -1), [MATRIX, MATRIX], "reshape reshape cat"),
    "hstack": (lambda x, y: torch.hstack((x, y)), [MATRIX, MATRIX], "cat"),
    "expand-as": (lambda x, y: x[:1].expand_as(y), [MATRIX, MATRIX], "slice expand"),
    "tile": (lambda x: x.tile(2), [MATRIX], "repeat"),
    "repeat-interleave": (lambda x: x.repeat_interleave(2, 1), [IMAGE], "reshape expand reshape"),
    "roll": (lambda x: x.roll(2), [MATRIX], "reshape roll reshape"),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 0), value=2.0), [IMAGE], "constant_pad_nd"),
    "pad-nothing": (lambda x: F.pad(x, (0, 0)).relu(), [IMAGE], "relu"),
    "reflect": (lambda x: F.pad(x, (1, 2, 1, 0), mode="reflect"), [IMAGE], "pad"),
    "channel-shuffle": (lambda x: F.channel_shuffle(x, 2), [IMAGE], "reshape permute reshape"),
    "memory-order": (lambda x: x.transpose(1, 2).contiguous().clone().detach(), [IMAGE], "permute"),
}

ARITHMETIC: dict[str, Case] = {
    "rsub": (lambda x: 1 - x, [MATRIX], "neg add"),
    "add-alpha": (lambda x, y: torch.add(x, y, alpha=2), [MATRIX, MATRIX], "mul add"),
    "floor-divide": (lambda x: x // 0.3, [MATRIX], "div floor"),
    "truncate": (lambda x: torch.div(x, 0.3, rounding_mode="trunc"), [MATRIX], "div sign abs floor mul"),
    "square": (lambda x: x**2 + x.square(), [MATRIX], "mul mul add"),
    "cube": (lambda x: x**3, [MATRIX], "mul mul"),
    "root": (lambda x: x.abs() ** 0.5, [MATRIX], "abs sqrt"),
    "power": (lambda x: x.abs() ** 1.7, [MATRIX], "abs pow"),
    "power-of-number": (lambda x: 2**x, [MATRIX], "mul exp"),
    "clamp-min": (lambda x: x.clamp_min(0.1), [MATRIX], "clamp"),
    "maximum": (torch.max, [MATRIX, MATRIX], "maximum"),
    "compare": (lambda x: (x > 0).float(), [MATRIX], "gt to"),
    "masked-fill": (lambda x: x.masked_fill(x < 0, -1.0), [MATRIX], "lt where"),
    "where": (lambda x: torch.where(x > 0, x, 0.5), [MATRIX], "gt where"),
    "where-numbers": (lambda x: torch.where(x > 0, 1, 0), [MATRIX], "gt where"),
    "logic": (lambda x: ((x > 0) & ~(x > 1)).to(x.dtype), [MATRIX], "gt gt logical_not logical_and to"),
    "constants": (lambda x: x * torch.tensor(0.5) + torch.tensor(1), [MATRIX], "mul add"),
    "integers": (lambda x: (x > 0).sum() * 1.5, [MATRIX], "gt sum mul"),
    "addcmul": (lambda x, y: torch.addcmul(x, y, y, value=2), [MATRIX, MATRIX], "mul mul add"),
    "half": (lambda x: x.half().float(), [MATRIX], "to to"),
}

ACTIVATION: dict[str, Case] = {
    "relu6": (nn.ReLU6(), [IMAGE], "clamp"),
    "hardtanh": (nn.Hardtanh(-2, 2, inplace=True), [IMAGE], "clamp"),
    "glu": (lambda x: F.glu(x, 1), [IMAGE], "slice slice sigmoid mul"),
    "selu": (nn.SELU(), [MATRIX], "elu mul"),
    "celu": (nn.CELU(0.7), [MATRIX], "div elu mul"),
    "logsigmoid": (nn.LogSigmoid(), [MATRIX], "neg softplus neg"),
    "threshold": (nn.Threshold(0.1, 20), [MATRIX], "gt where"),
    "rrelu": (nn.RReLU(), [IMAGE], "leaky_relu"),
    "dropout": (nn.Dropout2d(), [IMAGE], "dropout"),
    "silu": (nn.SiLU(inplace=True), [IMAGE], "silu"),
    "gelu": (nn.GELU("tanh"), [IMAGE], "gelu"),
    "hardswish": (nn.Hardswish(inplace=True), [IMAGE], "hardswish"),
    "prelu": (nn.PReLU(8), [IMAGE], "prelu"),
}

CONTRACTION: dict[str, Case] = {
    "conv-same": (nn.Conv2d(8, 4, (2, 3), padding="same"), [IMAGE], "constant_pad_nd conv2d"),
    "conv-of-one-image": (nn.Conv2d(8, 4, 3), [IMAGE[1:]], "reshape conv2d reshape"),
    "conv1d": (nn.Conv1d(8, 4, 3, 2, 1), [SIGNAL], "reshape reshape conv2d reshape"),
    "conv1d-same": (nn.Conv1d(8, 4, 4, padding="same", dilation=2), [SIGNAL], "reshape reshape conv2d reshape"),
    "conv1d-transposed": (
        nn.ConvTranspose1d(8, 4, 3, 2, 1, 1),
        [SIGNAL],
        "reshape reshape conv_transpose2d reshape",
    ),
    "conv-circular": (nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"), [IMAGE], "pad conv2d"),
    "bmm": (lambda x: torch.bmm(x, x.mT), [(2, 3, 4)], "permute matmul"),
    "baddbmm": (lambda x, y: torch.baddbmm(y, x, x.mT, beta=0.5), [(2, 3, 4), (3, 3)], "permute matmul mul add"),
    "einsum-product": (
        lambda x, y: torch.einsum("ij,kj->ik", x, y),
        [MATRIX, MATRIX],
        "reshape permute reshape matmul reshape",
    ),
    "einsum-heads": (
        lambda x, y: torch.einsum("bhid,bhjd->bhij", x, y),
        [HEADS, (2, 3, 6, 5)],
        "reshape permute reshape matmul reshape",
    ),
    "einsum-dots": (
        lambda x, y: torch.einsum("...ij,jk->...ik", x, y),
        [HEADS, (5, 2)],
        "reshape reshape matmul reshape",
    ),
    "einsum-sum": (lambda x: torch.einsum("ij->j", x), [MATRIX], "sum"),
    "einsum-implicit": (
        lambda x, y: torch.einsum("ba,bc", x, y),
        [MATRIX, MATRIX],
        "permute reshape reshape matmul reshape",
    ),
    "einsum-three": (
        lambda x, y, z: torch.einsum("ij,jk,kl->li", x, y, z),
        [(2, 3), (3, 4), (4, 5)],
        "reshape reshape matmul reshape reshape reshape matmul reshape permute",
    ),
    "attention": (
        lambda x, y: F.scaled_dot_product_attention(x, y, y),
        [HEADS, (2, 3, 6, 5)],
        "mul permute matmul softmax matmul",
    ),
    "attention-causal": (
        lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
        [HEADS],
        "mul permute matmul where softmax matmul",
    ),
    "attention-masked": (
        lambda x, mask: F.scaled_dot_product_attention(x, x, x, attn_mask=mask, scale=0.3),
        [HEADS, (4, 4)],
        "mul permute matmul add softmax amax eq where matmul",
    ),
}

POOLING: dict[str, Case] = {
    "to-one": (nn.AdaptiveAvgPool2d(1), [IMAGE], "mean"),
    "to-itself": (nn.AdaptiveAvgPool2d((6, None)), [IMAGE], ""),
    "dividing": (nn.AdaptiveAvgPool2d((2, 3)), [IMAGE], "avg_pool2d"),
    "not-dividing": (nn.AdaptiveAvgPool2d((4, 5)), [IMAGE], "adaptive_avg_pool2d"),
    "largest": (nn.AdaptiveMaxPool2d(1), [IMAGE], "amax"),
    "largest-dividing": (nn.AdaptiveMaxPool2d(3), [IMAGE], "max_pool2d"),
    "ceil": (nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), [IMAGE], "avg_pool2d"),
    "max1d": (nn.MaxPool1d(3, 2, 1), [SIGNAL], "reshape max_pool2d reshape"),
    "avg1d": (nn.AvgPool1d(3), [SIGNAL], "reshape avg_pool2d reshape"),
}

REDUCTION: dict[str, Case] = {
    "mean": (lambda x: x.mean(), [MATRIX], "mean"),
    "variance": (lambda x: x.var((1, 2)), [IMAGE], "mean sub mul mean mul"),
    "deviation": (lambda x: x.std(1, unbiased=False), [IMAGE], "mean sub mul mean sqrt"),
    "max-with-place": (lambda x: x.max(1), [MATRIX], "amax argmax"),
    "any": (lambda x: (x > 0).any(1), [MATRIX], "gt amax"),
    "logsumexp": (lambda x: x.logsumexp(1), [MATRIX], "amax isinf where sub exp sum log add reshape"),
    "normalize": (lambda x: F.normalize(x, dim=1), [MATRIX], "linalg_vector_norm clamp expand div"),
    "norm": (lambda x: torch.linalg.norm(x, 1, dim=-1), [MATRIX], "linalg_vector_norm"),
    "cumsum": (lambda x: x.cumsum(-1), [MATRIX], "cumsum"),
    "softmax-in-f64": (lambda x: F.softmax(x, 1, dtype=torch.float64), [MATRIX], "to softmax"),
    "batch-norm-1d": (nn.BatchNorm1d(6), [MATRIX], "batch_norm"),
    "batch-norm-without-statistics": (
        nn.BatchNorm2d(8, affine=False, track_running_stats=False),
        [(2, 8, 4, 4)],
        "mean sub mul mean add mean sub rsqrt mul",
    ),
    "rms-norm": (nn.RMSNorm(6), [MATRIX], "mul mean add rsqrt mul mul"),
    "local-response": (
        nn.LocalResponseNorm(3),
        [IMAGE],
        "mul reshape constant_pad_nd reshape avg_pool2d reshape reshape mul add pow div",
    ),
    "bilinear": (lambda x: F.interpolate(x, (9, 11), mode="bilinear"), [IMAGE], "upsample_bilinear2d"),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), [IMAGE], "upsample_nearest2d"),
}

INDEXING: dict[str, Case] = {
    "one-list": (lambda x: x[:, torch.tensor([2, 0, -1])], [MATRIX], "index_select"),
    "table": (lambda x: x[torch.tensor([[0, 1], [2, 3]])], [MATRIX], "index_select reshape"),
    "pair": (
        lambda x: x[:, :, torch.tensor([0, 1]), torch.tensor([[2], [3]])],
        [IMAGE],
        "reshape index_select reshape",
    ),
    "apart": (
        lambda x: x[torch.tensor([0]), :, torch.tensor([1, 2])],
        [IMAGE],
        "permute reshape index_select",
    ),
}

CREATION: dict[str, Case] = {
    "ones-like": (lambda x: x + torch.ones_like(x), [MATRIX], "add"),
    "arange": (lambda x: x * torch.arange(6), [MATRIX], "mul"),
    "grid": (lambda x: x + torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(6.0))).sum(0), [MATRIX], "add"),
    "tril": (lambda x: x.tril(), [MATRIX], "where"),
    "new-full": (lambda x: torch.cat((x, x.new_full((4, 1), 3.0)), 1), [MATRIX], "cat"),
}

CASES = {
    f"{family}-{name}": case
    for family, cases in {
        "movement": MOVEMENT,
        "arithmetic": ARITHMETIC,
        "activation": ACTIVATION,
        "contraction": CONTRACTION,
        "pooling": POOLING,
        "reduction": REDUCTION,
        "indexing": INDEXING,
        "creation": CREATION,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_synonym_reaches_its_spelling(name: str) -> None:
    function, shapes, wanted = CASES[name]
    torch.manual_seed(0)
    model = traced(function, *draw(*shapes), bound=2e-6)
    assert " ".join(op_names(model)) == wanted


def test_linear_from_a_product_with_stored_weights() -> None:
    """`addmm` with a transposed weight, as linear layers are after decomposition, becomes `linear`."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 6))
            self.bias = nn.Parameter(torch.randn(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(self.bias, x, self.weight.t()) + torch.mm(x, self.weight.t())

    assert op_names(traced(Layer(), *draw(MATRIX))) == ["linear", "linear", "add"]


def test_a_linear_layer_by_a_vector_is_a_product() -> None:
    """It has no output channels that a normalisation behind it could fold into."""

    class Layer(nn.Module):
        def __init__(self, bias: torch.Tensor | None) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4))
            self.bias = bias
            self.norm = nn.BatchNorm1d(4)
            self.norm.running_mean = torch.randn(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.norm(F.linear(x, self.weight, self.bias))
            return result

    for bias, wanted in ((None, ["matmul", "batch_norm"]), (torch.tensor(0.5), ["matmul", "add", "batch_norm"])):
        (x,) = draw((3, 4, 4))
        model = traced(Layer(bias), x)
        assert op_names(model) == wanted
        folded, _ = Pipeline.parse("fold-batch-norm").run(model)
        assert relative_difference(folded(x)[0], model(x)[0]) <= 1e-6


def test_sampling_of_volumes() -> None:
    traced(lambda x, at: F.grid_sample(x, at, align_corners=False), *draw((1, 2, 3, 4, 5), (1, 2, 2, 2, 3)))


def test_arguments_are_written_in_full() -> None:
    model = traced(lambda x: F.max_pool2d(x, 2)[:, 1:].reshape(-1, 7).softmax(-1), *draw(IMAGE))
    lines = [line.split(" = ")[1] for line in model.to_text().splitlines() if " = " in line]
    assert lines == [
        "max_pool2d(%x_0, [2, 2], [2, 2], [0, 0], [1, 1], False) : f32[1,8,3,3]",
        "slice(%max_pool2d, 1, 1, 8, 1) : f32[1,7,3,3]",
        "reshape(%slice_1, [9, 7]) : f32[9,7]",
        "softmax(%reshape, 1) : f32[9,7]",
    ]


def test_decomposed_program_reaches_the_same_graph() -> None:
    """Core ATen operators, which other tools hand over, have spellings too."""
    from lvc.compiler.load.normalise.rebuild import rebuild
    from lvc.compiler.load.tracing import read_program

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
        nn.LayerNorm(2), nn.Softmax(1),
    ).eval()  # fmt: skip
    (x,) = draw((1, 3, 8, 8))
    program = torch.export.export(module, (x,), strict=False).run_decompositions()
    rebuilt = rebuild(read_program(program, ["x"], ("output",)))
    names = [node.target._schema.name for node in rebuilt.graph.nodes if node.op == "call_function"]
    assert names == [
        f"aten::{name}"
        for name in ("conv2d", "batch_norm", "max_pool2d", "mean", "reshape", "linear", "layer_norm", "softmax")
    ]
    torch.testing.assert_close(rebuilt(x)[0], module(x))
