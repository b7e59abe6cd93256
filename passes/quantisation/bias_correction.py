"""Biases so that each layer's mean output over calibration data is that of the floating-point model.

Rounding moves the mean of what a layer gives, channel by channel, and layers after it see that move on all inputs. In
graph order, with every correction before it made::

    b' = b + mean(float output) - mean(quantised output)

Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.2
(empirical correction); Finkelstein et al. 2019, "Fighting quantization bias with bias".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from lvc.compiler.ir.layers import channel_dim, set_bias
from lvc.passes.quantisation.layer_pass import Mending
from lvc.passes.quantisation.layerwise import Layerwise, stored_bias


def bias_correction(images: int) -> Mending:
    """The way to mend layers by their biases alone, on so many images."""
    return Mending("correcting biases", "with corrected biases", images, correct_bias)


def correct_bias(both: Layerwise, layer: Node) -> None:
    """Give a layer of the quantised model the bias with which its mean output is that in floating point."""
    restore_means(both, layer, both.wanted(layer))


def restore_means(both: Layerwise, layer: Node, wanted: Sequence[torch.Tensor]) -> None:
    """Run the quantised model past a layer, and give it the bias with which its mean output is the one wanted."""
    found = both.found(layer)
    shift = channel_means(wanted, layer) - channel_means(found, layer)
    set_bias(both.model.module, layer, stored_bias(both.model, layer).double() + shift)
    both.shift(layer, shift)


def channel_means(values: Sequence[torch.Tensor], layer: Node) -> torch.Tensor:
    """Return the mean of each channel of a layer over all batches and places, ``f64[channels]``."""
    return torch.stack([_rows(value, channel_dim(layer)).double().mean(0) for value in values]).mean(0)


def _rows(value: torch.Tensor, channels: int) -> torch.Tensor:
    """Return ``[places,channels]``; a layer that reads one vector without a batch gives one row."""
    return value.movedim(channels, -1).reshape(-1, value.shape[channels])
