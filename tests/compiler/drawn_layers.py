"""Calls of the ATen overloads that layers make: products, pooling, normalisation, interpolation."""

from __future__ import annotations

import torch
from drawing import FLOATS, Arguments, Draw, Drawn
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten


def _spatial(d: Draw, rank: int, least: int = 4, most: int = 7) -> list[int]:
    return [d.number(least, most) for _ in range(rank)]


def _per_dim(d: Draw, rank: int, low: int, high: int) -> list[int]:
    """One number for each spatial dimension, or one for all."""
    each = [d.number(low, high) for _ in range(rank)]
    return d.pick(each, each[:1])


def _conv(rank: int, *, named: bool = False, transposed: bool = False) -> Drawn:
    def draw(d: Draw) -> Arguments:
        groups = d.number(1, 3)
        inputs, outputs = groups * d.number(1, 2), groups * d.number(1, 2)
        kernel = [d.number(1, 3) for _ in range(rank)]
        lead = [] if d.number(0, 3) == 0 else [d.number(1, 2)]
        x = d.tensor((*lead, inputs, *_spatial(d, rank)))
        rows = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
        given: Arguments = {"input": x, "weight": d.tensor((*rows, *kernel), [x.dtype])}
        given["bias"] = d.maybe(d.tensor((outputs,), [x.dtype]))
        padding = d.pick("same", "valid") if named else _per_dim(d, rank, 0, 2)
        given["stride"] = [1] if padding == "same" else _per_dim(d, rank, 1, 3)
        given["padding"] = padding
        dilation = _per_dim(d, rank, 1, 2)
        if transposed:
            largest = min(max(s, e) for s, e in zip(_whole(given["stride"], rank), _whole(dilation, rank), strict=True))
            given["output_padding"] = _per_dim(d, rank, 0, largest - 1)
            return {**given, "groups": groups, "dilation": dilation}
        return {**given, "dilation": dilation, "groups": groups}

    return draw


def _whole(sizes: list[int], rank: int) -> list[int]:
    return sizes * rank if len(sizes) == 1 else sizes


def _convolution(d: Draw) -> Arguments:
    rank, transposed = d.pick(1, 2, 3), d.flag()
    given = _conv(rank, transposed=transposed)(d)
    if given["input"].ndim == rank + 1:
        given["input"] = given["input"].unsqueeze(0)
    sizes = {name: _whole(given[name], rank) for name in ("stride", "padding", "dilation")}
    output_padding = _whole(given.get("output_padding", [0]), rank)
    whole = {**given, **sizes, "transposed": transposed, "output_padding": output_padding}
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
    return {name: whole[name] for name in names}


_SETTINGS = ("benchmark", "deterministic", "cudnn_enabled", "allow_tf32")


def _matrices(d: Draw, left: int, right: int, first: str, second: str) -> Arguments:
    m, k, n, batch = (d.number(1, 4) for _ in range(4))
    shapes = {1: (k,), 2: (m, k), 3: (batch, m, k)}, {1: (k,), 2: (k, n), 3: (batch, k, n)}
    x = d.tensor(shapes[0][left])
    return {first: x, second: d.tensor(shapes[1][right], [x.dtype])}


def _added(rank: int, first: str, second: str) -> Drawn:
    def draw(d: Draw) -> Arguments:
        product = _matrices(d, rank, rank, first, second)
        x, y = product.values()
        bias = d.tensor(d.broadcast((x @ y).shape), [x.dtype])
        return {"self": bias, **product, "beta": d.pick(1, 0.5, 0), "alpha": d.pick(1, 2)}

    return draw


def _matmul(d: Draw) -> Arguments:
    left, right = d.number(1, 4), d.number(1, 4)
    m, k, n = (d.number(1, 4) for _ in range(3))
    batch = [d.number(1, 3) for _ in range(2)]
    x = d.tensor((k,) if left == 1 else (*[d.pick(1, size) for size in batch[4 - left :]], m, k))
    y = d.tensor((k,) if right == 1 else (*batch[4 - right :], k, n), [x.dtype])
    return {"self": x, "other": y}


_EQUATIONS = (
    *("ij,jk->ik", "bij,bkj->bik", "ij->ji", "ij->", "i,j->ij", "ij,ij->ij", "bij,bij->b", "bhid,bhjd->bhij"),
    *("...ij,...jk->...ik", "...ij,jk", "ij,jk,kl->il", "bchw,hkc->bkhw", "ij,j", "b...,b...->...b", "ijk,jl->lki"),
    *("aij,aij->a", "abc,cd,de->abe"),
)


def _einsum(d: Draw) -> Arguments:
    equation = d.pick(*_EQUATIONS)
    sizes = {letter: d.number(1, 4) for letter in "abcdehijklw"}
    dots = [d.number(1, 3) for _ in range(d.number(0, 2))]
    dtype = d.pick(*[dtype for dtype in FLOATS if dtype in d.dtypes])
    tensors = []
    for term in equation.partition("->")[0].split(","):
        lead, _, rest = term.partition("...")
        shape = [sizes[a] for a in lead] + (dots if "..." in term else []) + [sizes[a] for a in rest]
        tensors.append(d.tensor(shape, [dtype]))
    return {"equation": equation, "tensors": tensors}


def _attention(cpu: bool = False) -> Drawn:
    def draw(d: Draw) -> Arguments:
        batch = [d.number(1, 2), d.number(1, 3)] if cpu else [d.number(1, 2) for _ in range(d.number(1, 2))]
        rows, keys, width = (d.number(1, 5) for _ in range(3))
        query = d.tensor((*batch, rows, width))
        key = d.tensor((*batch, keys, width), [query.dtype])
        value = d.tensor((*batch, keys, width if cpu else d.number(1, 4)), [query.dtype])
        causal = d.number(0, 2) == 0
        masks = [d.tensor(d.broadcast((*batch, rows, keys))[-2:], [query.dtype]) for _ in range(2)]
        if not cpu:
            masks.append(d.tensor((rows, keys), [torch.bool]))
        mask = d.tensor((rows, keys), [query.dtype]) if cpu else d.pick(*masks)
        return {
            "query": query,
            "key": key,
            "value": value,
            "attn_mask": None if causal else d.maybe(mask),
            "is_causal": causal,
            "scale": d.pick(None, 0.4),
        }

    return draw


def _linear(d: Draw) -> Arguments:
    x = d.any(1, dtypes=FLOATS)
    out = d.number(1, 4)
    weight = d.tensor((out, x.shape[-1]), [x.dtype])
    return {"input": x, "weight": weight, "bias": d.maybe(d.tensor((out,), [x.dtype]))}


CONTRACTION: dict[OpOverload, Drawn] = {
    aten.conv2d.default: _conv(2),
    aten.conv2d.padding: _conv(2, named=True),
    aten.conv1d.default: _conv(1),
    aten.conv1d.padding: _conv(1, named=True),
    aten.conv_transpose2d.input: _conv(2, transposed=True),
    aten.conv_transpose1d.default: _conv(1, transposed=True),
    aten.conv3d.default: _conv(3),
    aten.conv3d.padding: _conv(3, named=True),
    aten.conv_transpose3d.input: _conv(3, transposed=True),
    aten.convolution.default: _convolution,
    aten._convolution.default: lambda d: _convolution(d) | dict.fromkeys(_SETTINGS, False),
    aten.linear.default: _linear,
    aten.matmul.default: _matmul,
    aten.linalg_matmul.default: _matmul,
    aten.mm.default: lambda d: _matrices(d, 2, 2, "self", "mat2"),
    aten.bmm.default: lambda d: _matrices(d, 3, 3, "self", "mat2"),
    aten.mv.default: lambda d: _matrices(d, 2, 1, "self", "vec"),
    aten.dot.default: lambda d: _matrices(d, 1, 1, "self", "tensor"),
    aten.addmm.default: _added(2, "mat1", "mat2"),
    aten.baddbmm.default: _added(3, "batch1", "batch2"),
    aten.outer.default: lambda d: {"self": d.any(1, 1), "vec2": d.any(1, 1)},
    aten.einsum.default: _einsum,
    aten.scaled_dot_product_attention.default: _attention(),
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention(cpu=True),
}


def _pool(rank: int, *, dilated: bool = False, counted: bool = False, divided: bool = False) -> Drawn:
    def draw(d: Draw) -> Arguments:
        kernel = _per_dim(d, rank, 1, 3)
        lead = [d.number(1, 3)] if d.number(0, 3) == 0 else [d.number(1, 2), d.number(1, 3)]
        given: Arguments = {"self": d.tensor((*lead, *_spatial(d, rank, 5, 8))), "kernel_size": kernel}
        given["stride"] = d.pick([], _per_dim(d, rank, 1, 3))
        given["padding"] = [d.number(0, size // 2) for size in kernel]
        if dilated:
            given["dilation"] = _per_dim(d, rank, 1, 2)
        given["ceil_mode"] = d.flag()
        if counted:
            given["count_include_pad"] = d.flag()
        if divided:
            given["divisor_override"] = d.pick(None, 1, 3, -2)
        return given

    return draw


def _adaptive(rank: int) -> Drawn:
    def draw(d: Draw) -> Arguments:
        lead = [d.number(1, 3)] if d.number(0, 3) == 0 else [d.number(1, 2), d.number(1, 3)]
        size = [d.number(1, 6) for _ in range(rank)]
        return {"self": d.tensor((*lead, *_spatial(d, rank, 1, 6))), "output_size": size}

    return draw


def _windows(d: Draw) -> Arguments:
    names = {"kernel_size": (1, 3), "dilation": (1, 2), "padding": (0, 2), "stride": (1, 3)}
    return {name: [d.number(*between) for _ in range(2)] for name, between in names.items()}


def _im2col(d: Draw) -> Arguments:
    lead = [] if d.number(0, 3) == 0 else [d.number(1, 2)]
    return {"self": d.tensor((*lead, d.number(1, 3), *_spatial(d, 2, 5, 8))), **_windows(d)}


def _col2im(d: Draw) -> Arguments:
    image = _im2col(d)
    columns = aten.im2col.default(*image.values())
    size = list(image.pop("self").shape[-2:])
    return {"self": d.tensor(columns.shape), "output_size": size, **image}


def _windows_along(d: Draw) -> Arguments:
    x = d.any()
    dim = d.dim(x)
    return {"self": x, "dimension": dim, "size": d.number(1, x.shape[dim] if x.ndim else 1), "step": d.number(1, 3)}


def _unpooled(d: Draw) -> Arguments:
    """Places that differ within each plane, which may be more than there are elements."""
    x = d.tensor((*d.shape(0, 1), *d.shape(1, 1), d.number(1, 3), d.number(1, 3)))
    height, width = (x.shape[-2] + d.number(0, 3), x.shape[-1] + d.number(0, 3))
    generator = torch.Generator().manual_seed(d.number(0, 99))
    drawn = torch.rand(*x.shape[:-2], height * width, generator=generator).argsort(-1)
    places = drawn[..., : x.shape[-2] * x.shape[-1]].reshape(x.shape)
    return {"self": x, "indices": places, "output_size": [height, width]}


POOLING: dict[OpOverload, Drawn] = {
    aten.max_unpool2d.default: _unpooled,
    aten.max_pool2d.default: _pool(2, dilated=True),
    aten.max_pool2d_with_indices.default: _pool(2, dilated=True),
    aten.max_pool1d.default: _pool(1, dilated=True),
    aten.avg_pool2d.default: _pool(2, counted=True, divided=True),
    aten.avg_pool1d.default: _pool(1, counted=True),
    aten.max_pool3d.default: _pool(3, dilated=True),
    aten.max_pool3d_with_indices.default: _pool(3, dilated=True),
    aten.avg_pool3d.default: _pool(3, counted=True, divided=True),
    aten.adaptive_avg_pool3d.default: _adaptive(3),
    aten._adaptive_avg_pool3d.default: _adaptive(3),
    aten.adaptive_max_pool3d.default: _adaptive(3),
    aten.adaptive_avg_pool2d.default: _adaptive(2),
    aten._adaptive_avg_pool2d.default: _adaptive(2),
    aten.adaptive_avg_pool1d.default: _adaptive(1),
    aten.adaptive_max_pool2d.default: _adaptive(2),
    aten.im2col.default: _im2col,
    aten.col2im.default: _col2im,
    aten.unfold.default: _windows_along,
}


def _channels(d: Draw, x: Tensor, *, always: bool = False) -> tuple[Tensor, Tensor]:
    mean = d.tensor((x.shape[1],), [x.dtype])
    return mean, d.tensor((x.shape[1],), [x.dtype], 0.3, 2)


def _affine(d: Draw, x: Tensor, shape: tuple[int, ...]) -> Arguments:
    pair = [d.tensor(shape, [x.dtype]) for _ in range(2)]
    return {"weight": d.maybe(pair[0]), "bias": d.maybe(pair[1])}


def _batch_norm(flag: str, *, last: str = "", kept: str = "maybe") -> Drawn:
    """``flag`` names the argument that asks for the input's own statistics; ``kept`` says if others are given."""

    def draw(d: Draw) -> Arguments:
        x = d.tensor((d.number(2, 3), d.number(1, 4), *[d.number(2, 4) for _ in range(d.number(1, 3))]))
        mean, var = _channels(d, x)
        has = kept == "always" or (kept == "maybe" and d.flag())
        given: Arguments = {"input": x, **_affine(d, x, (x.shape[1],))}
        if kept != "never":
            given |= {"running_mean": mean if has else None, "running_var": var if has else None}
        if flag:
            given[flag] = d.flag() if has else True
        given |= {"momentum": d.pick(0.1, 0.0), "eps": d.pick(1e-5, 0.1)}
        return given | ({last: d.flag()} if last else {})

    return draw


def _layer_norm(last: str = "", *, optional: bool = True) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.tensor((*d.shape(0, 2), d.number(2, 4), d.number(2, 4)))
        shape = x.shape[x.ndim - d.number(1, 2) :]
        given: Arguments = {"input": x, "normalized_shape": list(shape), **_affine(d, x, shape)}
        return given | {"eps": d.pick(1e-5, 0.1)} | ({last: True} if last else {})

    return draw


def _rms_norm(d: Draw) -> Arguments:
    given = _layer_norm()(d)
    return {key: given[key] for key in ("input", "normalized_shape", "weight")} | {"eps": d.pick(None, 0.1)}


def _grouped(d: Draw) -> tuple[Tensor, int]:
    groups = d.number(1, 3)
    return d.tensor((d.number(1, 2), groups * d.number(1, 2), *[d.number(2, 4) for _ in range(d.number(1, 3))])), groups


def _group_norm(d: Draw) -> Arguments:
    x, groups = _grouped(d)
    return {"input": x, "num_groups": groups, **_affine(d, x, (x.shape[1],)), "eps": d.pick(1e-5, 0.1)}


def _native_group_norm(d: Draw) -> Arguments:
    x, groups = _grouped(d)
    sizes = {"N": x.shape[0], "C": x.shape[1], "HxW": x[0, 0].numel(), "group": groups}
    return {"input": x, **_affine(d, x, (x.shape[1],)), **sizes, "eps": d.pick(1e-5, 0.1)}


def _softmax(name: str) -> Drawn:
    def draw(d: Draw) -> Arguments:
        x = d.any(dtypes=FLOATS)
        return {"self": x, "dim": d.dim(x), name: d.pick(None, *FLOATS) if name == "dtype" else False}

    return draw


NORMALISATION: dict[OpOverload, Drawn] = {
    aten.batch_norm.default: _batch_norm("training", last="cudnn_enabled"),
    aten.instance_norm.default: _batch_norm("use_input_stats", last="cudnn_enabled"),
    aten.native_batch_norm.default: _batch_norm("training"),
    aten._native_batch_norm_legit.default: _batch_norm("training", kept="always"),
    aten._native_batch_norm_legit.no_stats: lambda d: {**_batch_norm("training", kept="never")(d), "training": True},
    aten._native_batch_norm_legit_no_training.default: _batch_norm("", kept="always"),
    aten.layer_norm.default: _layer_norm("cudnn_enable"),
    aten.native_layer_norm.default: _layer_norm(),
    aten.group_norm.default: _group_norm,
    aten.native_group_norm.default: _native_group_norm,
    aten.rms_norm.default: _rms_norm,
    aten.softmax.int: _softmax("dtype"),
    aten.log_softmax.int: _softmax("dtype"),
    aten._softmax.default: _softmax("half_to_float"),
    aten._log_softmax.default: _softmax("half_to_float"),
}


def _resize(corners: bool) -> Drawn:
    """An output size, and factors that lead to it or are left out."""

    def draw(d: Draw) -> Arguments:
        x = d.tensor((d.number(1, 2), d.number(1, 3), d.number(1, 6), d.number(1, 6)))
        factors = [d.pick(1.0, 2.0, 1.7, 3.0, d.real(1, 3)) for _ in range(2)]
        size = [int(have * factor) for have, factor in zip(x.shape[2:], factors, strict=True)]
        given: Arguments = {"self": x, "output_size": size}
        if corners:
            given["align_corners"] = d.flag()
        if d.flag():
            given |= {"scales_h": factors[0], "scales_w": factors[1]}
        elif d.flag():
            given["output_size"] = [d.number(1, 9), d.number(1, 9)]
        return given

    return draw


def _resize_row(corners: bool) -> Drawn:
    def draw(d: Draw) -> Arguments:
        given = _resize_by_either(corners)(d)
        given["input"] = given["input"][:, :, 0]
        return given | {name: given[name] and given[name][1:] for name in ("output_size", "scale_factors")}

    return draw


def _resize_by_either(corners: bool) -> Drawn:
    def draw(d: Draw) -> Arguments:
        given = _resize(corners)(d)
        factors = [given.pop("scales_h", None), given.pop("scales_w", None)]
        by_factor = None not in factors
        named = {"input": given["self"], "output_size": None if by_factor else given["output_size"]}
        if corners:
            named["align_corners"] = given["align_corners"]
        return named | {"scale_factors": factors if by_factor else None}

    return draw


def _sample(d: Draw) -> Arguments:
    """Places inside and far outside, single pixels among the images; dimensions that do not fit are refused."""
    x = d.tensor((d.number(1, 2), d.number(1, 3), d.number(1, 6), d.number(1, 6)))
    grid = d.tensor((len(x), d.number(1, 4), d.number(1, 4), 2), [x.dtype])
    modes = {"interpolation_mode": d.number(0, 2), "padding_mode": d.number(0, 2), "align_corners": d.flag()}
    return {"input": x, "grid": grid, **modes}


def _affine_grid(d: Draw) -> Arguments:
    size = [d.number(1, 3) for _ in range(d.pick(4, 4, 5))]
    return {
        "theta": d.tensor((size[0], len(size) - 2, len(size) - 1)),
        "size": size,
        "align_corners": d.flag(),
    }


RESAMPLING: dict[OpOverload, Drawn] = {
    aten.upsample_nearest2d.default: _resize(corners=False),
    aten.upsample_bilinear2d.default: _resize(corners=True),
    aten.upsample_bicubic2d.default: _resize(corners=True),
    aten.upsample_nearest2d.vec: _resize_by_either(corners=False),
    aten.upsample_bilinear2d.vec: _resize_by_either(corners=True),
    aten.upsample_bicubic2d.vec: _resize_by_either(corners=True),
    aten.upsample_linear1d.vec: _resize_row(corners=True),
    aten.grid_sampler.default: _sample,
    aten.grid_sampler_2d.default: _sample,
    aten.affine_grid_generator.default: _affine_grid,
}
