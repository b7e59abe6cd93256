"""The table of synonyms: for each operator outside the dialect, or with arguments to complete, its one spelling.

To teach the importer a new synonym, add an entry to the table of its family. A rule takes the builder and the call's
arguments, tensors as operands, and writes the same value with operators of the dialect.
"""

from __future__ import annotations

from importlib import import_module

import torch
from torch._ops import OpOverload

from lvc.compiler.ir.dialect import OPS
from lvc.compiler.ir.operators.counted import counted
from lvc.compiler.load.normalise.activation import ACTIVATION
from lvc.compiler.load.normalise.arithmetic import ARITHMETIC
from lvc.compiler.load.normalise.attention import ATTENTION
from lvc.compiler.load.normalise.builder import Rule
from lvc.compiler.load.normalise.complex_numbers import COMPLEX
from lvc.compiler.load.normalise.contraction import CONTRACTION
from lvc.compiler.load.normalise.creation import CONSTANT_ONLY, CREATION
from lvc.compiler.load.normalise.einsum import EINSUM
from lvc.compiler.load.normalise.indexing import INDEXING
from lvc.compiler.load.normalise.movement import MOVEMENT
from lvc.compiler.load.normalise.normalisation import NORMALISATION
from lvc.compiler.load.normalise.open_lengths import OPEN, SELECTED
from lvc.compiler.load.normalise.ordering import ORDERING
from lvc.compiler.load.normalise.patches import PATCHES
from lvc.compiler.load.normalise.places import PLACES
from lvc.compiler.load.normalise.pooled_regions import POOLED
from lvc.compiler.load.normalise.pooling import POOLING
from lvc.compiler.load.normalise.recurrent import RECURRENT
from lvc.compiler.load.normalise.reduction import REDUCTION
from lvc.compiler.load.normalise.regions import REGIONS
from lvc.compiler.load.normalise.resampling import RESAMPLING
from lvc.compiler.load.normalise.separable import SEPARABLE
from lvc.compiler.load.normalise.volumes import VOLUMES

aten = torch.ops.aten

RULES: dict[OpOverload, Rule] = {
    **MOVEMENT,
    **ARITHMETIC,
    **ACTIVATION,
    **CONTRACTION,
    **EINSUM,
    **ATTENTION,
    **POOLING,
    **PLACES,
    **PATCHES,
    **REDUCTION,
    **NORMALISATION,
    **RESAMPLING,
    **SEPARABLE,
    **VOLUMES,
    **RECURRENT,
    **INDEXING,
    **ORDERING,
    **CREATION,
}


NAMED: dict[str, Rule] = {
    **REGIONS,
    **POOLED,
    **SELECTED,
    str(counted): lambda b, x, count, dim: b.call(counted, x, count, dim),
}
"""Rules for operators of packages, which exist once the package is imported, by name; for calls whose length depends on
the data; and for the mark of a list, which no finished graph holds."""


def rule_of(overload: OpOverload) -> Rule | None:
    """The rule of an operator; None if there is none."""
    return RULES.get(overload) or NAMED.get(str(overload))


CHECKS: frozenset[OpOverload] = frozenset(
    {aten._assert_tensor_metadata.default, aten._assert_async.msg, aten._assert_async.default}
)
"""Operators that compute nothing and only stop a run; a compiled model does without."""

KNOWN: dict[str, OpOverload] = {
    str(overload): overload for overload in (*OPS, *RULES, *CONSTANT_ONLY, *CHECKS, *OPEN, *COMPLEX)
}


def find_operator(target: str) -> OpOverload | None:
    """The operator that a file names, ``torch.ops.aten.relu_.default``, if it or its functional twin is known."""
    name = target.removeprefix("torch.ops.")
    if name in KNOWN:
        return KNOWN[name]
    if name in NAMED:
        return _imported(name)
    packet, _, overload = name.rpartition(".")
    if not packet.endswith("_") or f"{packet[:-1]}.{overload}" not in KNOWN:
        return None
    written = getattr(aten, packet.removeprefix("aten."), None)
    if written is None or overload not in written.overloads():
        return None
    found = getattr(written, overload)
    return found if isinstance(found, OpOverload) and functional_twin(found) is not None else None


def _imported(name: str) -> OpOverload | None:
    """An operator of a package, if the package can be imported."""
    package, operator, overload = name.split(".")
    try:
        import_module(package)
        found = getattr(getattr(getattr(torch.ops, package), operator), overload)
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, OpOverload) else None


def functional_twin(overload: OpOverload) -> OpOverload | None:
    """The operator that computes what an in-place one (``relu_``) writes, or None if this one writes nothing."""
    schema = overload._schema
    if not schema.is_mutable or not schema.arguments or schema.arguments[0].alias_info is None:
        return None
    name = schema.name.removeprefix("aten::")
    packet = getattr(aten, name.removesuffix("_"), None)
    if not name.endswith("_") or packet is None or overload._overloadname not in packet.overloads():
        return None
    twin = getattr(packet, overload._overloadname)
    assert isinstance(twin, OpOverload)
    return twin
