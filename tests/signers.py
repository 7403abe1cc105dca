"""Signers that jobs name by import path; the server itself gives out the tokens (tests/servers.py)."""

from __future__ import annotations

import urllib.request
from urllib.parse import urlsplit


def from_server(href: str) -> str:
    """Sign with a token that the href's own server gives out."""
    parts = urlsplit(href)
    assert not parts.query, "hrefs come unsigned"
    with urllib.request.urlopen(f"{parts.scheme}://{parts.netloc}/token", timeout=30) as answer:
        return f"{href}?sig={answer.read().decode()}"


def stale(href: str) -> str:
    """Sign with a token that nobody gave out."""
    return f"{href}?sig=s3cret-stale"


def broken(href: str) -> str:
    """Fail, and tell more than is good."""
    raise ValueError(f"no token for {href}?sig=s3cret-broken")


def silent(href: str) -> None:
    """Forget to return what was signed."""


NOT_CALLABLE = "no function"
