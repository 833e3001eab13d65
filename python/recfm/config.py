"""From TOML and JSON to the config dataclasses, with errors that name the key and the nearest known one."""

import dataclasses
import difflib
import json
import re
import tomllib
import typing
from pathlib import Path
from typing import Any, TypeVar

from recfm.errors import ConfigError, RecfmError

T = TypeVar("T")


class Strict:
    """Base of every dataclass that users write in a file: unknown keys are errors, never ignored."""

    __slots__ = ()
    __pydantic_config__: typing.ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def memory_bytes(memory: str | int) -> int:
    """Bytes of a memory budget such as "2GiB", "512 MiB" or a number of bytes.

    Raises:
        ConfigError: It is no size above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Z]*)\s*", str(memory).upper())
    if (
        match
        and match[2] in _UNITS
        and 0 < (found := float(match[1]) * _UNITS[match[2]]) < float("inf")
        and int(found)
    ):
        return int(found)
    raise ConfigError(f"memory is {memory!r}: give a size such as '512MiB' or '2GB', or a number of bytes")


def check_range(
    config: Any,
    *names: str,
    low: float,
    high: float = 2**31 - 1,
    what: str = "",
    error: type[RecfmError] = ConfigError,
) -> None:
    """Raise `error` unless each named field (or each entry of a tuple field) lies in [low, high]; NaN never does.

    Args:
        config: A dataclass.
        names: Its fields to check.
        low: Least value allowed.
        high: Greatest value allowed.
        what: How the message calls `config`; by default its class.
        error: The class to raise.
    """
    for name in names:
        value = getattr(config, name)
        where = f"{what or type(config).__name__}: {name} is {value}"
        entries = value if isinstance(value, tuple) else (value,)
        if not entries:
            raise error(f"{what or type(config).__name__}: {name} is empty: give at least one value")
        if not all(isinstance(entry, int | float) and low <= entry <= high for entry in entries):
            raise error(f"{where}: it must lie between {low:,} and {high:,}")


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
        # A misspelt key is both unknown and missing; the unknown one says more.
        problems = sorted(problem.errors(), key=lambda p: p["type"] != _UNKNOWN)
        raise error(f"{what}: {_explain(problems[0], cls)}") from None


_UNKNOWN = "unexpected_keyword_argument"


def _explain(problem: Any, cls: type[Any]) -> str:
    if isinstance(problem.get("ctx", {}).get("error"), RecfmError):
        return str(problem["ctx"]["error"])
    where = [str(part) for part in problem["loc"] if part not in _union_tags(cls)]
    name, path = where[-1] if where else "", ".".join(where)
    if problem["type"] == _UNKNOWN:
        here = sorted(_fields(_at(cls, where[:-1])))
        near = difflib.get_close_matches(name, here, n=1)
        elsewhere = [".".join(steps) for steps in _paths(cls) if steps[-1] == name]
        if not near and elsewhere:
            near = elsewhere
        hint = f"did you mean '{near[0]}'?" if near else f"known keys are {', '.join(here)}"
        return f"unknown key '{path}'; {hint}"
    if problem["type"] in ("missing", "missing_argument", "union_tag_not_found"):
        lacking = problem["ctx"]["discriminator"].strip("'") if "ctx" in problem else ""
        return f"key '{path}{'.' + lacking if lacking else ''}' is missing"
    found = repr(problem["input"])
    if not path:
        return f"{found[:60]} is no table of keys"
    return f"key '{path}' is {found[:60]}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _union_tags(cls: Any) -> set[str]:
    """Steps that pydantic puts into a path for a union's member (its `kind`), which no file has."""
    tags = {tag for part in typing.get_args(cls) for tag in _union_tags(part)}
    if dataclasses.is_dataclass(cls):
        for name, hint in _fields(cls).items():
            tags |= set(typing.get_args(hint)) if name == "kind" else _union_tags(hint)
    return tags


def _fields(cls: Any) -> dict[str, Any]:
    """Field names and types of a dataclass; of a union, those of all its members."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return {name: hint for part in typing.get_args(cls) for name, hint in _fields(part).items()}


def _at(cls: Any, where: list[str]) -> Any:
    """The type at a path; steps that are no field (a list index, a union's tag) stay where they are."""
    for step in where:
        cls = _fields(cls).get(step, cls)
    return cls


def _paths(cls: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all fields, nested ones too."""
    out = []
    for name, hint in _fields(cls).items():
        out += [(*prefix, name), *_paths(hint, (*prefix, name))]
    return out


def read_toml(path: str | Path, overrides: typing.Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file as plain values, with dotted overrides such as "loop.vm_train.epochs=3" applied.

    Raises:
        ConfigError: The file is missing or not TOML, or an override is not `key=value`.
    """
    try:
        fields = tomllib.loads(Path(path).read_text(encoding="utf-8"))
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
