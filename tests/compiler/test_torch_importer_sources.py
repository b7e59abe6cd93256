"""What users hold in their hands: TorchScript, half precision, parametrised and lazy weights, examples in a tuple."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from traced import draw, op_names

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import from_module, load
from lvc.compiler.load.torch_importer import from_own_module
from lvc.compiler.pipeline.observers import relative_difference

IMAGE = (1, 3, 8, 8)

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit", "ignore:.*weight_norm:FutureWarning", "ignore:Converting a tensor"
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()
        self.register_buffer("shift", torch.ones(4))

    def forward(self, image: Tensor, scale: float = 2.0) -> Tensor:
        y = self.drop(self.norm(self.conv(image)).relu())
        if y.shape[1] > 3:
            y = y * scale
        return y.mean((2, 3)) + self.shift


def agrees(model: Model, wanted: Callable[..., Tensor], *inputs: Tensor, bound: float = 2e-6) -> None:
    """The model is well formed, computes what eager PyTorch did, and so does its reference."""
    verify(model)
    with torch.no_grad():
        theirs = wanted(*inputs).float().numpy()
    arrays = [x.float().numpy() for x in inputs]
    assert relative_difference(model(*arrays)[0], theirs) <= bound
    assert model.reference
    assert relative_difference(model.reference.run(arrays)[0], theirs) <= bound


def scripted() -> torch.jit.ScriptModule:
    torch.manual_seed(0)
    return torch.jit.script(Net())


def traced_script() -> torch.jit.ScriptModule:
    torch.manual_seed(0)
    return torch.jit.trace(Net().eval(), torch.zeros(IMAGE))


def frozen() -> torch.jit.ScriptModule:
    torch.manual_seed(0)
    return torch.jit.freeze(torch.jit.script(Net().eval()))


@pytest.mark.parametrize("make", [scripted, traced_script, frozen])
def test_torchscript_is_traced(make: Callable[[], torch.jit.ScriptModule]) -> None:
    (image,) = draw(IMAGE)
    torch.manual_seed(0)
    eager = Net().eval()
    model = from_own_module(make(), [image], name="net")
    agrees(model, eager, image)
    assert [value.name for value in model.inputs] in (["image"], ["image_1"])


def test_torchscript_factory_takes_weights(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\ndef make():\n    return torch.jit.script(torch.nn.Conv2d(3, 4, 1))\n"
    )
    weights = nn.Conv2d(3, 4, 1)
    torch.save(weights.state_dict(), tmp_path / "w.pt")
    model = load(f"{tmp_path / 'net.py'}:make", shapes={"input": IMAGE}, weights=tmp_path / "w.pt")
    agrees(model, weights, *draw(IMAGE))
    assert "conv2d" in op_names(model)


def test_torchscript_file_is_read_with_trust_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.jit.save(scripted(), tmp_path / "net.pt")
    torch.manual_seed(0)
    agrees(load(str(tmp_path / "net.pt"), shapes={"": IMAGE}, trust=True), Net().eval(), *draw(IMAGE))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the file was read"))
    with pytest.raises(UsageError, match="read only with --trust"):
        load(str(tmp_path / "net.pt"), shapes={"": IMAGE})


def test_torchscript_as_weights_says_what_it_is(tmp_path: Path) -> None:
    torch.jit.save(scripted(), tmp_path / "net.pt")
    with pytest.raises(CompileError, match="a whole network in TorchScript") as caught:
        load("torchvision.models:resnet18", weights=tmp_path / "net.pt")
    assert "--trust" in caught.value.help


def test_damaged_torchscript_is_one_clear_error(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/code/net.py", "nothing")
    with pytest.raises(CompileError, match="the TorchScript file cannot be read"):
        load(str(tmp_path / "net.pt"), trust=True)


class Halves(nn.Module):
    """Asks for half precision by name, and makes half constants."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.twin = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.twin.weight

    def forward(self, image: Tensor) -> Tensor:
        y = self.again(self.twin(self.first(image.to(torch.bfloat16)).relu()))
        return y * torch.full((6,), 0.5, dtype=torch.bfloat16) + y.new_ones(6)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_is_widened_and_a_note_says_so(name: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU()).eval().to(getattr(torch, name))
    image = draw(IMAGE)[0].to(getattr(torch, name))
    model = from_module(module, image)
    assert str(model.inputs[0].spec) == "f32[1,3,8,8]"
    assert model.notes == [f"{name} was widened to float32: 'input' of its signature; 6 stored tensor(s)"]
    assert module[0].weight.dtype is getattr(torch, name)
    agrees(model, lambda x: module.float()(x.float()), image)


def test_half_precision_that_is_asked_for_by_name_is_widened_too() -> None:
    torch.manual_seed(0)
    module = Halves().bfloat16().eval()
    (image,) = draw(IMAGE)
    model = from_own_module(module, [image], name="halves")
    assert len([value for value in model.module.parameters() if value.shape == (6, 6)]) == 1
    assert all(value.dtype is not torch.bfloat16 for value in model.module.state_dict().values())
    assert model.reference
    (wanted,) = model.reference.run([image.numpy()])
    assert relative_difference(model(image)[0], wanted) <= 2e-6
    eager = Halves()
    eager.load_state_dict(module.state_dict())
    assert relative_difference(wanted, eager.bfloat16()(image).detach().float().numpy()) <= 0.05


def test_half_precision_in_an_exported_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval().half()
    image = draw(IMAGE)[0].half()
    torch.export.save(torch.export.export(module, (image,)), tmp_path / "net.pt2")
    model = load(str(tmp_path / "net.pt2"))
    assert model.notes[0].startswith("float16 was widened")
    agrees(model, lambda x: module.float()(x.float()), image)


def test_rounding_to_half_inside_a_whole_model_is_kept() -> None:
    model = from_module(nn.Identity().eval(), torch.zeros(3))
    assert model.notes == []


def new_weight_norm() -> nn.Module:
    return parametrizations.weight_norm(nn.Conv2d(3, 4, 3))


def new_spectral_norm() -> nn.Module:
    return parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))


def old_weight_norm() -> nn.Module:
    return nn.utils.weight_norm(nn.Conv2d(3, 4, 3))


def old_spectral_norm() -> nn.Module:
    return nn.utils.spectral_norm(nn.Conv2d(3, 4, 3))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.erfinv() if weight.abs().max() < 1 else weight * 2


def own_parametrisation() -> nn.Module:
    layer = nn.Conv2d(3, 4, 3)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


@pytest.mark.parametrize(
    "make", [new_weight_norm, new_spectral_norm, old_weight_norm, old_spectral_norm, own_parametrisation]
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_parametrised_weights_are_computed_once(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(make(), nn.ReLU()).train()
    (image,) = draw(IMAGE)
    module(image)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for model in (from_module(module, image), from_own_module(make_again(module, make), [image], name="own")):
        assert op_names(model) == ["conv2d", "relu"]
        agrees(model, module.eval(), image)
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def make_again(module: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """Another such module with the same weights, for an importer that takes its tensors over."""
    twin = nn.Sequential(make(), nn.ReLU())
    twin.load_state_dict(module.state_dict())
    return twin.eval()


def test_lazy_layers_take_their_sizes_from_the_examples() -> None:
    (image,) = draw(IMAGE)
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(5)).eval()
    torch.manual_seed(0)
    model = from_own_module(lazy, [image], name="lazy")
    assert [str(value.spec) for value in model.outputs] == ["f32[1,5]"]
    assert model.reference
    assert relative_difference(model(image)[0], model.reference.run([image.numpy()])[0]) <= 2e-6


def test_examples_may_come_in_one_tuple() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    x, y = draw((2, 3), (2, 3))
    for examples in (((x, y),), ([x, y],), (x, y)):
        assert np.array_equal(from_module(Sum(), *examples)(x, y)[0], (x + y).numpy())
    with pytest.raises(UsageError, match="an example input is a tensor, not a ndarray"):
        from_module(nn.ReLU(), x.numpy())  # type: ignore[arg-type]


def test_constant_outputs_are_kept() -> None:
    class Anchors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("anchors", torch.arange(4.0))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return x.relu(), self.anchors, torch.full((2,), 3.0)

    (x,) = draw((2, 3))
    model = from_module(Anchors(), x)
    verify(model)
    assert [out.tolist() for out in model(x)[1:]] == [[0, 1, 2, 3], [3, 3]]
