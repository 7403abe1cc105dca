"""Inference engines other than plain torch, behind the same protocol."""

from __future__ import annotations

__all__: list[str] = []
