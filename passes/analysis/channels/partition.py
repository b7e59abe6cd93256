"""Atoms that can be united and fixed: a union-find over vectors of atoms."""

from __future__ import annotations

import torch


class Partition:
    """Classes of atoms. An atom is an integer from 0; vectors of atoms are ``i64`` tensors of any shape.

    The root of a class is its smallest atom. Fixing an atom fixes its class, with the reason that was given first.
    """

    def __init__(self) -> None:
        self._parent = torch.empty(0, dtype=torch.int64)
        self._size = 0
        self._fixed: list[tuple[torch.Tensor, str]] = []

    def __len__(self) -> int:
        return self._size

    def fresh(self, count: int) -> torch.Tensor:
        """Return ``count`` new atoms, each a class of its own."""
        start, self._size = self._size, self._size + count
        if self._size > len(self._parent):
            grown = torch.arange(2 * self._size)
            grown[: len(self._parent)] = self._parent
            self._parent = grown
        return torch.arange(start, self._size)

    def find(self, atoms: torch.Tensor) -> torch.Tensor:
        """Return the root of each atom's class."""
        roots = self._parent[atoms]
        while not torch.equal(further := self._parent[roots], roots):
            roots = further
        self._parent[atoms] = roots
        return roots

    def unite(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Make one class of each pair; ``left`` is expanded to the shape of ``right``."""
        left, right = left.expand(right.shape).reshape(-1), right.reshape(-1)
        while True:
            left, right = self.find(left), self.find(right)
            apart = left != right
            if not bool(apart.any()):
                return
            left, right = left[apart], right[apart]
            self._parent.scatter_reduce_(0, torch.maximum(left, right), torch.minimum(left, right), "amin")

    def fix(self, atoms: torch.Tensor, reason: str) -> None:
        """Say that these atoms stay, and why."""
        self._fixed.append((atoms.reshape(-1), reason))

    def reasons(self) -> dict[int, str]:
        """Return the reason of every fixed class, by its root."""
        found: dict[int, str] = {}
        for atoms, reason in self._fixed:
            for root in self.find(atoms).tolist():
                found.setdefault(root, reason)
        return found

    def classes(self, atoms: torch.Tensor) -> int:
        """Return how many classes a vector has."""
        return len(set(self.find(atoms.reshape(-1)).tolist()))
