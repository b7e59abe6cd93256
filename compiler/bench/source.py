"""The model that an artefact was made of, as its metadata says; the file may be anybody's, so types are checked."""

from __future__ import annotations

from typing import Any

from lvc.compiler.artefact import Artefact
from lvc.compiler.errors import UsageError
from lvc.compiler.load.request import LoadRequest


def stored_request(artefact: Artefact) -> LoadRequest:
    """Return how the artefact's model was loaded; `UsageError` if it does not say."""
    stored = artefact.metadata.get("source")
    try:
        return _request(stored if isinstance(stored, dict) else {})
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"the artefact '{artefact.name}' does not say which model it was made of",
            help="name the model that the other engines shall run with --model",
        ) from error


def _request(stored: dict[str, Any]) -> LoadRequest:
    source, weights = stored["source"], stored.get("weights")
    if not isinstance(source, str) or not source or not (weights is None or isinstance(weights, str)):
        raise TypeError
    shapes = {str(name): tuple(map(int, shape)) for name, shape in dict(stored.get("shapes") or {}).items()}
    arguments = {str(name): value for name, value in dict(stored.get("arguments") or {}).items()}
    return LoadRequest(source, weights, arguments, shapes, int(stored.get("seed") or 0))
