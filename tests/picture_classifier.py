"""A classifier of pictures that is built in a moment."""

from __future__ import annotations

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model


def picture_classifier() -> Model:
    """Four scores of a picture of 8x8."""
    model = parse_model("""
        model small(x: f32[1,3,8,8])
          @w : f32[4,3,8,8]
          @b : f32[4]
          %y = conv2d(%x, @w, @b)
          %z = reshape(%y, [1, 4])
          return scores=%z
    """)
    model.preprocessing = "resize=8x8,layout=rgb,range=1"
    return model
