"""Criteria of `prune-channels`, one a file, found by name: see `lvc.passes.pruning.criterion`."""
