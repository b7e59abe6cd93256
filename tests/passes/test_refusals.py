"""What passes leave alone when a model is in training mode or an option says so, and the options that they refuse."""

from __future__ import annotations

import pytest
import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline

TRAINING = parse_model("""
    model training(x: f32[2,3,4,4])
      @w : f32[3,3,1,1]
      @mean : f32[3]
      @var : f32[3]
      %conv = conv2d(%x, @w)
      %bn = batch_norm(%conv, None, None, @mean, @var, True, 0.1, 1e-05, True)
      %twin = batch_norm(%conv, None, None, @mean, @var, True, 0.1, 1e-05, True)
      %drop = dropout(%bn, 0.5, True)
      %again = dropout(%bn, 0.5, True)
      %noise = dropout(@w, 0.5, True)
      return a=%drop, b=%again, c=%noise, d=%twin
""")


@pytest.mark.parametrize(
    ("name", "skipped"),
    [
        ("fold-batch-norm", {"bn", "twin"}),
        ("eliminate-identities", {"drop", "again", "noise"}),
        ("fold-constants", {"noise"}),
        ("merge-duplicates", set()),
    ],
)
def test_training_mode_is_left_alone(name: str, skipped: set[str]) -> None:
    model, (step,) = Pipeline.parse(name).run(TRAINING)
    assert model.to_text() == TRAINING.to_text()
    assert step.outcome.places == 0
    assert {skip.node for skip in step.outcome.skipped} == skipped
    assert all("in training mode" in skip.reason for skip in step.outcome.skipped)


def chain(length: int) -> Model:
    calls = [f"%v{i + 1} = sigmoid(%v{i})" for i in range(length)]
    return parse_model("\n".join(["model chain(v0: f32[2])", *calls, f"return out=%v{length}"]))


def test_a_group_has_no_more_calls_than_the_limit() -> None:
    model, _ = Pipeline.parse("fuse-operators{limit=3}").run(chain(7))
    groups = [node.meta.get("group") for node in model.module.graph.nodes if node.op == "call_function"]
    assert groups == ["v1", "v1", "v1", "v4", "v4", "v4", None]


def test_equal_tensors_stay_apart_on_request() -> None:
    text = """
        model equal(x: f32[3])
          @a : f32[3] = 1.5
          @b : f32[3] = 1.5
          %y = mul(%x, @a)
          %z = mul(%x, @b)
          return y=%y, z=%z
    """
    apart, _ = Pipeline.parse("merge-duplicates{tensors=false}").run(parse_model(text))
    merged, _ = Pipeline.parse("merge-duplicates").run(parse_model(text))
    assert (apart.parameters, merged.parameters) == (6, 3)


def test_parameters_and_buffers_stay_apart() -> None:
    model = parse_model("""
        model equal(x: f32[3])
          @a : f32[3] = 1.5
          @b : f32[3] = 1.5
          %y = mul(%x, @a)
          %z = mul(%y, @b)
          return z=%z
    """)
    value = model.module.b.detach()
    del model.module.b
    model.module.register_buffer("b", value)
    _, (step,) = Pipeline.parse("merge-duplicates").run(model)
    assert step.outcome.places == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_type(dtype: torch.dtype) -> None:
    name = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64"}[dtype]
    model = parse_model(f"""
        model typed(x: {name}[1,3,4,4])
          @w : {name}[2,3,1,1]
          @mean : {name}[2]
          @var : {name}[2]
          %conv = conv2d(%x, @w)
          %bn = batch_norm(%conv, None, None, @mean, @var, False, 0.1, 1e-05, True)
          return out=%bn
    """)
    folded, _ = Pipeline.parse("fold-batch-norm").run(model)
    scale = (model.module.var.double() + 1e-5).rsqrt().reshape(-1, 1, 1, 1)
    assert torch.equal(folded.module.w, (model.module.w.double() * scale).to(dtype))
    assert folded.outputs == model.outputs


@pytest.mark.parametrize("text", ["fold-constants{limit=-1}", "fuse-operators{limit=1}"])
def test_options_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="limit must"):
        Pipeline.parse(text)
