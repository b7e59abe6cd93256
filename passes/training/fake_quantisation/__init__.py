"""Fake quantisation as training runs it: what is rounded has straight-through gradients, and scales may learn."""
