"""Labelled images: reading, checking, cutting and serving them for training."""

from __future__ import annotations

__all__: list[str] = []
