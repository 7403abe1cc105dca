"""Configuration files: YAML without surprises, and one sentence for whatever is wrong in it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import GeosweepError, JobError

B = TypeVar("B", bound=BaseModel)

_PLAIN = {
    "tuple_type": "should be a list",
    "model_type": "should be a block of keys",
    "dict_type": "should be a block of keys",
    "invalid_key": "every key must be text",
}
"""Our words where pydantic's speak of Python."""


class _StrictLoader(yaml.SafeLoader):
    """YAML without surprises: a key that stands twice is an error, not the last one's win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                problem = f"the key {key!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class Block(BaseModel):
    """A block of keys: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_yaml(
    path: str | Path, what: str = "job file", error: type[GeosweepError] = JobError
) -> Any:
    """Read a YAML file, for `checked` to validate.

    Parameters
    ----------
    path
        The file.
    what
        What the file is to the user, for messages.
    error
        What to raise.

    Raises
    ------
    GeosweepError
        Of the given kind, if the file can't be read or isn't YAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not text"
        raise error(f"The {what} {path} can't be read: {reason}.") from problem
    try:
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        detail = getattr(problem, "problem", None)
        reason = f": {detail}" if detail else ""
        raise error(
            f"The {what} {path} is not valid YAML{where}{reason}; mend it there."
        ) from problem
    return content


def checked(block: type[B], content: Any, where: str, error: type[GeosweepError] = JobError) -> B:
    """Validate a block of keys.

    Raises
    ------
    GeosweepError
        Of the kind `error`, with one sentence that names `where`, the key, the value and the nearest
        valid key.
    """
    if not isinstance(content, dict):
        required = [name for name, field in block.model_fields.items() if field.is_required()]
        names = " and ".join(required or list(block.model_fields)[:2])
        raise error(f"In {where}, expected keys such as {names}, found {type(content).__name__}.")
    try:
        return block.model_validate(content)
    except ValidationError as problem:
        raise error(f"In {where}, {_explain(problem, block, where)}") from problem


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """First problem of a validation error, as one sentence."""
    problem = error.errors()[0]
    path = [part for part in problem["loc"] if part != "int"]
    dotted = ".".join(str(part) for part in path)
    others = error.error_count() - 1
    more = f" (There are {others} more problems.)" if others > 1 else ""
    more = " (There is one more problem.)" if others == 1 else more
    if problem["type"] == "extra_forbidden":
        valid = _fields_at(model, path[:-1])
        near = difflib.get_close_matches(str(path[-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys are {', '.join(valid)}."
        return f"unknown key {dotted!r}: {hint}{more}"
    if problem["type"] == "missing":
        return f"the key {dotted!r} is missing; add it.{more}"
    reason = _PLAIN.get(problem["type"], problem["msg"]).removeprefix("Value error, ").rstrip(".")
    value = problem.get("input")
    shown = f" is {value!r}, but" if isinstance(value, (str, int, float, bool)) else ":"
    return f"{dotted or where}{shown} {reason[0].lower()}{reason[1:]}.{more}"


def _fields_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
