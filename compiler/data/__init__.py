"""Labelled images and arrays: reading them safely, preprocessing them for a model, naming the classes. No torch."""

from lvc.compiler.data.sources import open_data

__all__ = ["open_data"]
