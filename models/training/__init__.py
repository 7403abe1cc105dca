"""Training of detectors, crop models and tile filters with Lightning."""

from __future__ import annotations

__all__: list[str] = []
