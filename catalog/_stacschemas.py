"""STAC documents against the JSON schemas of STAC and its extensions.

The schemas of STAC itself come with pystac; those of extensions are published on the web alone.
pystac's own `validate` builds everything anew for each item (some 20 ms) and waits for ever on a slow
server, hence its schemas with jsonschema here; the tests hold both against each other.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_TIMEOUT_S = 10
_LONGEST = 200


class UnavailableSchemaError(Exception):
    """A schema that can't be fetched."""


class StacSchemas:
    """The schemas, each fetched and compiled once.

    Parameters
    ----------
    fetch
        Whether schemas that pystac does not bring are fetched. After the first server that can't be
        reached no other is tried.

    Attributes
    ----------
    skipped
        Schemas that documents named and that were not at hand, so that nothing was held to them.
    """

    def __init__(self, *, fetch: bool) -> None:
        from pystac.validation import JsonSchemaSTACValidator
        from referencing import Registry

        self._stac = JsonSchemaSTACValidator()
        self._schemas: dict[str, dict[str, Any]] = dict(self._stac.schema_cache)
        known = [(uri, self._resource(uri)) for uri in self._schemas]
        registry = Registry(retrieve=self._resource)  # type: ignore[call-arg]
        self._registry = registry.with_resources(known).crawl()
        self._validators: dict[str, Validator] = {}
        self._fetch = fetch
        self.skipped: set[str] = set()

    def problem(self, document: dict[str, Any]) -> str | None:
        """Return what is wrong with an item, collection or catalog; None if nothing is."""
        from pystac import STACObjectType

        kinds = {"Feature": STACObjectType.ITEM, "Collection": STACObjectType.COLLECTION}
        kind = kinds.get(str(document.get("type")))
        if kind is None:
            return f"its type is {document.get('type')!r}, not 'Feature' or 'Collection'"
        version = document.get("stac_version")
        core = self._stac.schema_uri_map.get_object_schema_uri(kind, str(version))
        if core is None:
            return f"its stac_version is {version!r}, which is none"
        # As JSON has it: tuples are lists there.
        plain = json.loads(json.dumps(document))
        extensions = plain.get("stac_extensions")
        for uri in (core, *(extensions if isinstance(extensions, list) else ())):
            fault = self._fault(plain, str(uri))
            if fault is not None:
                return fault
        return None

    def _fault(self, document: dict[str, Any], uri: str) -> str | None:
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        if uri in self.skipped:
            return None
        try:
            error = best_match(self._validator(uri).iter_errors(document))
        except (UnavailableSchemaError, Unresolvable):
            self.skipped.add(uri)
            return None
        if error is None:
            return None
        where = ".".join(str(part) for part in error.absolute_path)
        message = error.message
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"
        return f"{where}: {message}" if where else message

    def _validator(self, uri: str) -> Validator:
        from jsonschema.validators import validator_for

        if uri not in self._validators:
            schema = self._schema(uri)
            kind = validator_for(schema)
            self._validators[uri] = kind(schema, registry=self._registry)
        return self._validators[uri]

    def _resource(self, uri: str) -> Any:
        from referencing import Resource
        from referencing.jsonschema import DRAFT7

        return Resource.from_contents(self._schema(uri), default_specification=DRAFT7)

    def _schema(self, uri: str) -> dict[str, Any]:
        found = self._schemas.get(uri) or self._schemas.get(uri.removesuffix("#"))
        if found is None:
            found = self._schemas[uri] = self._fetched(uri)
        return found

    def _fetched(self, uri: str) -> dict[str, Any]:
        if not self._fetch or not uri.startswith(("https://", "http://")):
            raise UnavailableSchemaError(uri)
        try:
            with urllib.request.urlopen(uri, timeout=_TIMEOUT_S) as response:
                schema = json.load(response)
        except urllib.error.HTTPError as error:
            raise UnavailableSchemaError(uri) from error
        except (OSError, ValueError) as error:
            self._fetch = not isinstance(error, OSError)
            raise UnavailableSchemaError(uri) from error
        if not isinstance(schema, dict):
            raise UnavailableSchemaError(uri)
        return schema
