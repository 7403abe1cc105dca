"""HTTP to a STAC API: retries, credentials that stay with their server, pages to the very last."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any, cast
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urljoin, urlsplit, urlunsplit

from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests import PreparedRequest, Request
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3 import Retry

from .errors import SourceError
from .hrefs import public_href, scrub

_TIMEOUT_S = (10, 60)  # to connect; between two packets of an answer
_RETRIES = 5  # waits of 0, 1, 2, 4 and 8 s, or as long as the server's Retry-After says
_STATUSES = (429, 500, 502, 503, 504)
_CHATTY = ("urllib3.connectionpool", "urllib3.util.retry", "pystac_client.stac_api_io")
"""Loggers that write whole URLs and headers: the first at every retry, all when debugging."""


class _Discretion(logging.Filter):
    """Blots secrets out of log records."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        clean = _blotted(text, self.secrets)
        if clean != text:
            record.msg, record.args = clean, ()
        return True


_DISCRETION = _Discretion()


class ApiHttp(StacApiIO):
    """pystac-client's HTTP, made patient and discreet.

    Answers of 429 and 5xx, and connections that fail or stall, are tried again with growing waits;
    ``Retry-After`` is honoured. User, password and query parameters of the root's URL go along with
    every request to the same scheme, host and port, and nowhere else.

    Parameters
    ----------
    root
        The API's landing page, with credentials if it needs any.
    backoff_s
        The second wait; each doubles the one before.
    token
        Sent to the same server as ``Authorization: Bearer``, in place of user and password.
    """

    def __init__(self, root: str, *, backoff_s: float = 0.5, token: str | None = None) -> None:
        parts = urlsplit(root)
        self.root = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        self.name = public_href(self.root)
        self._origin = _origin(root)
        self._parameters = dict(parse_qsl(parts.query))
        self._secrets: list[str] = []
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        self._auth: AuthBase | None = HTTPBasicAuth(user, password) if user or password else None
        self._keep_secret(password, *self._parameters.values())
        if self._auth is not None:
            self._keep_secret(b64encode(f"{user}:{password}".encode()).decode())
        if token:
            self._auth = _Bearer(token)
            self._keep_secret(token)
        retry = Retry(
            total=_RETRIES,
            connect=2,  # a misspelt host shouldn't take half a minute to say so
            backoff_factor=backoff_s,
            status_forcelist=_STATUSES,
            allowed_methods=None,  # a search is a POST that changes nothing
            respect_retry_after_header=True,
            raise_on_status=False,
        )
        super().__init__(
            timeout=_TIMEOUT_S,  # type: ignore[arg-type]
            max_retries=retry,
            request_modifier=self._authorize,
        )

    def fetch(
        self, href: Any, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the JSON object that a URL, or a link of a page, answers with.

        Raises
        ------
        ApiStatusError
            If the server answers with an error.
        AnswerError
            If it answers with something else.
        SourceError
            If it doesn't answer.
        """
        text = self._text(href, method, parameters)
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise AnswerError(f"{self.name} answered with something that is not a JSON object")
        return document

    def change(self, method: str, url: str, document: dict[str, Any] | None = None) -> None:
        """Send a document, or ask for a deletion; what is answered doesn't matter.

        A request that got lost on its way back is sent again: the caller takes into account that the
        first one may have been done.

        Raises
        ------
        ApiStatusError, SourceError
            As `fetch` does.
        """
        self._text(url, method, document)

    def _text(self, href: Any, method: str | None, parameters: dict[str, Any] | None) -> str:
        try:
            return self.read_text(href, method=method, parameters=parameters)
        except APIError as error:
            status = getattr(error, "status_code", None)
            if status is None:
                raise SourceError(f"{self.name} can't be reached: {self._cause(error)}") from None
            raise ApiStatusError(self.name, status, self._detail(str(error))) from None

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield each page. An empty page may have a next one, so only a missing link is the end."""
        # pystac-client ends at the first empty page, and would follow a circle for ever.
        from pystac import Link

        page = self.fetch(url, method, parameters)
        seen = set()
        while True:
            yield page
            following = next((x for x in page.get("links", []) if x.get("rel") == "next"), None)
            if following is None or not following.get("href"):
                return
            following["href"] = urljoin(url, following["href"])
            key = json.dumps([following["href"], following.get("body")], sort_keys=True)
            if key in seen:
                raise SourceError(f"{self.name} leads from page to page in a circle")
            seen.add(key)
            page = self.fetch(Link.from_dict(following), parameters=parameters)

    def _authorize(self, request: Request) -> Request:
        if _origin(str(request.url)) == self._origin:
            given = dict(parse_qsl(urlsplit(str(request.url)).query))
            missing = {name: x for name, x in self._parameters.items() if name not in given}
            request.params = missing | cast(dict[str, Any], request.params or {})
            request.auth = self._auth
        return request

    def _cause(self, error: BaseException) -> str:
        """What went wrong at the bottom, without the URL that was asked for."""
        inner: Any = error.__context__ or error
        while True:
            reason = getattr(inner, "reason", None) or next(iter(inner.args), None)
            if not isinstance(reason, BaseException):
                break
            inner = reason
        text = str(inner).rpartition(": ")[2].strip("\"')( ") or type(inner).__name__
        return self._discreet(text)

    def _detail(self, body: str) -> str:
        """The server's own words, in one line."""
        try:
            content = json.loads(body)
            found = next(content[x] for x in ("description", "detail", "message") if content.get(x))
            text = found if isinstance(found, str) else json.dumps(found)
        except (ValueError, AttributeError, TypeError, StopIteration):
            text = "" if "<html" in body.lower() else body
        line = self._discreet(" ".join(text.split()))
        return line if len(line) <= 200 else f"{line[:199]}…"

    def _keep_secret(self, *secrets: str) -> None:
        # What is shorter says nothing, and blotting it out would make messages unreadable.
        self._secrets += [text for text in secrets if len(text) > 3]
        for name in _CHATTY:
            logging.getLogger(name).addFilter(_DISCRETION)  # once, however often it is said
        _DISCRETION.secrets.update(self._secrets)

    def _discreet(self, text: str) -> str:
        return scrub(_blotted(text, self._secrets))


class _Bearer(AuthBase):
    """A token, which the user's .netrc does not displace."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class AnswerError(SourceError):
    """The server answered with something that no API answers with."""


class ApiStatusError(SourceError):
    """The server answered with an error.

    Attributes
    ----------
    status
        HTTP's.
    detail
        The server's own words, without secrets; empty where it has none.
    """

    def __init__(self, name: str, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        said = f": {detail}" if detail else ""
        if status in (401, 403):
            message = (
                f"{name} refuses access (HTTP {status}): put user and password, or the provider's "
                "key, into the URL of source.stac"
            )
        elif status in _STATUSES:
            message = (
                f"{name} can't answer (HTTP {status}){said}; try again later, and check "
                "source.filter and sortby if it stays so"
            )
        else:
            message = (
                f"{name} refused the request (HTTP {status}){said}; "
                "check source.filter, sortby, bbox and datetime"
            )
        super().__init__(message)


def _blotted(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        for form in (secret, quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(form, "***")
    return text


def _origin(href: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(href)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or usual
