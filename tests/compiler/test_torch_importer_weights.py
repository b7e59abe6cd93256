"""State dicts: what is read, what is taken off around them, what is reported, what is refused."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.load.weights import load_weights, read_state_dict


class Hostile:
    """An object whose pickle runs a command when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def _state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {name: torch.rand_like(value.float()) for name, value in _net().state_dict().items()}


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "nested": lambda state: {"checkpoint": 1, "state_dict": {"model": state}},
    "data-parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {"model": {f"_orig_mod.{name}": value for name, value in state.items()}},
    "both": lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_taken_off(wrapper: str, tmp_path: Path) -> None:
    net, state = _net(), _state()
    torch.save(WRAPPERS[wrapper](state), tmp_path / "w.pth")
    load_weights(net, tmp_path / "w.pth")
    assert torch.equal(net[0].weight, state["0.weight"])
    assert torch.equal(net[1].running_var, state["1.running_var"])


def test_prefix_that_the_model_has_itself_stays(tmp_path: Path) -> None:
    net = nn.ModuleDict({"model": nn.Linear(2, 2)})
    state = {name: torch.ones_like(value) for name, value in net.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    load_weights(net, tmp_path / "w.pth")
    assert torch.equal(net["model"].weight, torch.ones(2, 2))


def test_npz_is_read(tmp_path: Path) -> None:
    net, state = _net(), _state()
    np.savez(tmp_path / "w.npz", **{name: value.numpy() for name, value in state.items()})
    load_weights(net, tmp_path / "w.npz")
    assert torch.equal(net[0].bias, state["0.bias"])


def test_all_that_does_not_fit_is_reported_at_once(tmp_path: Path) -> None:
    state = _state()
    state["0.weight"] = torch.zeros(4, 2, 1, 1)
    state["head.weight"] = state.pop("1.bias")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CompileError) as caught:
        load_weights(_net(), tmp_path / "w.pth")
    assert caught.value.why.splitlines() == [
        "1 missing: 1.bias",
        "1 not in the model: head.weight",
        "1 of another shape: 0.weight (4x2x1x1 for 4x3x1x1)",
    ]


def test_many_keys_are_counted(tmp_path: Path) -> None:
    torch.save({f"other.{i}": torch.zeros(1) for i in range(9)}, tmp_path / "w.pth")
    with pytest.raises(CompileError) as caught:
        load_weights(_net(), tmp_path / "w.pth")
    assert "9 not in the model: other.0, other.1, other.2, other.3, and 5 more" in caught.value.why


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_pickle_with_code_is_refused_and_not_run(save: str, protocol: int, tmp_path: Path) -> None:
    file, trace = tmp_path / "w.pth", tmp_path / "was-run"
    if save == "torch":
        torch.save({"state_dict": Hostile(trace)}, file, pickle_protocol=protocol)
    else:
        file.write_bytes(pickle.dumps({"state_dict": Hostile(trace)}, protocol=protocol))
    with pytest.raises(CompileError) as caught:
        read_state_dict(file)
    assert caught.value.what == "the file of weights is refused"
    assert "mkdir" in caught.value.why
    assert not trace.exists()


def test_pickled_module_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(CompileError) as caught:
        read_state_dict(tmp_path / "w.pth")
    assert "'torch.nn.modules.linear.Linear'" in caught.value.why


def test_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save(_state(), tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as good,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in good.namelist():
            bomb.writestr(name, good.read(name))
    with pytest.raises(CompileError, match="refused"):
        read_state_dict(tmp_path / "bomb.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.npz"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"])
def test_damaged_file_is_one_clear_error(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CompileError, match="cannot be read"):
        read_state_dict(tmp_path / name)


def test_truncated_file_is_one_clear_error(tmp_path: Path) -> None:
    torch.save(_state(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CompileError, match="cannot be read"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {"lr": 0.1}}])
def test_file_without_tensors_says_what_it_holds(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CompileError, match="holds no state dict"):
        read_state_dict(tmp_path / "w.pth")


def test_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file of weights"):
        read_state_dict(tmp_path / "w.pth")


def test_broken_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(LvcError, match="cannot be read"):
        read_state_dict(tmp_path / "w.safetensors")


def test_weights_come_back_by_their_names(tmp_path: Path) -> None:
    """What `lvc opt -o net.safetensors` writes is a file of weights for the factory that the model came from."""
    from lvc.compiler.load import load
    from lvc.compiler.writing import write_model

    source = "torchvision.models:squeezenet1_1"
    model = load(source, shapes={"": (1, 3, 32, 32)}, seed=3)
    write_model(model, tmp_path / "net.safetensors")
    again = load(source, shapes={"": (1, 3, 32, 32)}, weights=tmp_path / "net.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.module.parameters(), again.module.parameters(), strict=True))
