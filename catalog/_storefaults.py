"""What went wrong with an object store, in a few words: obstore's errors run to forty lines."""

from __future__ import annotations

import re

from .hrefs import scrub

_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_URI = re.compile(r"Error performing \w+ (https?://[^/\s]+)")
_SYSTEM = re.compile(r'message: "([^"]+)"|error: "([^"]+)"')
# Where clouds hand out credentials to their own machines: asked when the environment has none.
_METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")


def fault(error: BaseException) -> str:
    """Return what an error of obstore means, without the request's own text.

    Parameters
    ----------
    error
        Anything that obstore raises.

    Returns
    -------
    str
        The end of a sentence, without a full stop and without secrets.
    """
    text = str(error)
    code, status = _first(_CODE, text), _first(_STATUS, text)
    if any(host in text for host in _METADATA):
        return "there are no credentials for it in the environment"
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return "there is no such bucket"
    if status in ("401", "403") or type(error).__name__ in (
        "PermissionDeniedError",
        "UnauthenticatedError",
    ):
        return "access denied, check the credentials in the environment"
    server = scrub(_first(_URI, text))
    if server and "error sending request" in text:
        why = _first(_SYSTEM, text)
        return f"{server} does not answer" + (f" ({why})" if why else "")
    if server and status:
        return f"{server} answered {status}" + (f" ({code})" if code else "")
    lines = scrub(text).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return next((group for group in found.groups() if group), "") if found else ""
