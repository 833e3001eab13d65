"""From TOML and JSON to the config dataclasses, with errors that name the key and the nearest known one."""

import dataclasses
import difflib
import json
import tomllib
import typing
from pathlib import Path
from typing import Any, TypeVar

from recfm.errors import ConfigError, RecfmError

T = TypeVar("T")


class Strict:
    """Base of every dataclass that users write in a file: unknown keys are errors, never ignored."""

    __slots__ = ()
    __pydantic_config__: typing.ClassVar[dict[str, str]] = {"extra": "forbid"}


def parse(cls: type[T], fields: dict[str, Any], *, what: str, error: type[RecfmError] = ConfigError) -> T:
    """Build a config dataclass (and those nested in it) from plain values.

    Args:
        cls: A dataclass that derives from `Strict`.
        fields: Values as TOML or JSON gives them; lists stand for tuples.
        what: What is being read, for the message.
        error: The class to raise.

    Raises:
        RecfmError: (as `error`) A key is unknown or missing, or a value has the wrong type or range.
    """
    import pydantic

    try:
        return pydantic.TypeAdapter(cls).validate_json(json.dumps(fields, default=str), strict=True)
    except pydantic.ValidationError as problem:
        raise error(f"{what}: {_explain(problem.errors()[0], cls)}") from None


def _explain(problem: Any, cls: type[Any]) -> str:
    if isinstance(problem.get("ctx", {}).get("error"), RecfmError):
        return str(problem["ctx"]["error"])
    where = [str(part) for part in problem["loc"]]
    name, path = where[-1] if where else "", ".".join(where)
    if problem["type"] == "unexpected_keyword_argument":
        known = sorted(_keys(cls))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys are {', '.join(known)}"
        return f"unknown key '{path}'; {hint}"
    if problem["type"] in ("missing", "missing_argument", "union_tag_not_found"):
        lacking = problem["ctx"]["discriminator"].strip("'") if "ctx" in problem else ""
        return f"key '{path}{'.' + lacking if lacking else ''}' is missing"
    found = repr(problem["input"])
    return f"key '{path}' is {found[:60]}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _keys(cls: Any) -> set[str]:
    """Field names of a dataclass and of every dataclass within it."""
    keys: set[str] = set()
    for part in (cls, *typing.get_args(cls)):
        if part is not cls:
            keys |= _keys(part)
        elif dataclasses.is_dataclass(part):
            for name, hint in typing.get_type_hints(part).items():
                if not name.startswith("__"):
                    keys |= {name} | _keys(hint)
    return keys


def read_toml(path: str | Path, overrides: typing.Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file as plain values, with dotted overrides such as "loop.vm_train.epochs=3" applied.

    Raises:
        ConfigError: The file is missing or not TOML, or an override is not `key=value`.
    """
    try:
        fields = tomllib.loads(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f"there is no config file '{path}'") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise ConfigError(f"config file '{path}' cannot be read as TOML: {problem}") from None
    for override in overrides:
        _apply(fields, override)
    return fields


def _apply(fields: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override '{override}' is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *sections, name = key.strip().split(".")
    for section in sections:
        fields = fields.setdefault(section, {})
        if not isinstance(fields, dict):
            raise ConfigError(f"override '{override}': '{section}' is a value, not a section")
    fields[name] = value
