"""Models that the user names by import path."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.errors import ModelError

if TYPE_CHECKING:
    from ._sources import FactorySource


def call_factory(source: FactorySource) -> Any:
    """Call what the user named by ``package.module:factory``, without arguments.

    Raises
    ------
    ModelError
        If it can't be imported or called.
    """
    try:
        factory = importlib.import_module(source.module)
        for part in source.attribute.split("."):
            factory = getattr(factory, part)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{source.name}: can't be imported ({error}).") from error
    if not callable(factory):
        raise ModelError(f"{source.name}: is not callable, expected a function without arguments.")
    return factory()


def factory_version(source: FactorySource) -> str:
    """Hash the import path and the module's source, as far as it is in a file."""
    try:
        spec = importlib.util.find_spec(source.module)
    except (ImportError, ValueError) as error:
        raise ModelError(f"{source.name}: can't be imported ({error}).") from error
    if spec is None:
        raise ModelError(f"{source.name}: there is no module {source.module}.")
    content = b""
    if spec.origin and Path(spec.origin).is_file():
        content = Path(spec.origin).read_bytes()
    return hashlib.sha256(source.name.encode() + b"\x1f" + content).hexdigest()[:16]
