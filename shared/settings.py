"""Settings: one frozen object per service, read once from the environment, each with its meaning beside it.

A service's `config.py` declares a frozen dataclass whose fields are made with `setting(...)`; `read_settings` fills it. An
unusable value stops the process with one clear line. The README's table is made from the same words, and a test compares them.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class BadSetting(Exception):  # noqa: N818  # named for its reason
    """A setting cannot be used; the message says which and why, in one line."""


def setting(meaning: str, *, default: Any = MISSING, reads: Callable[[str], Any] = str) -> Any:
    """One setting: what it is for (with its unit), its default, and how its text is read."""
    return field(default=default, metadata={"meaning": meaning, "reads": reads}) if default is not MISSING else field(
        metadata={"meaning": meaning, "reads": reads}
    )  # fmt: skip


def flag(text: str) -> bool:
    """`1`, `yes`, `true`, `on` or their opposites."""
    try:
        return {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}[
            text.strip().lower()
        ]  # fmt: skip
    except KeyError:
        msg = "expected yes or no"
        raise ValueError(msg) from None


def seconds(text: str) -> float:
    """A length of time in seconds, more than zero."""
    value = float(text)
    if not 0 < value < 1e7:
        msg = "expected a number of seconds above zero"
        raise ValueError(msg)
    return value


def folder(text: str) -> Path:
    """A folder's path, made absolute."""
    return Path(text).expanduser().absolute()


def read_settings(cls: type[T], environ: Mapping[str, str] | None = None, *, prefix: str) -> T:
    """The settings named `<prefix>_<FIELD>` in the environment. Raises `BadSetting`."""
    environ = os.environ if environ is None else environ
    values = {}
    for one in fields(cls):  # type: ignore[arg-type]  # a dataclass by contract
        name = f"{prefix}_{one.name.upper()}"
        text = environ.get(name, "")
        if text == "":
            if one.default is MISSING:
                msg = f"{name} is not set. It says: {one.metadata['meaning']}"
                raise BadSetting(msg)
            continue
        try:
            values[one.name] = one.metadata["reads"](text)
        except ValueError as error:
            msg = f"{name}={text!r} cannot be used: {error}. It says: {one.metadata['meaning']}"
            raise BadSetting(msg) from None
    return cls(**values)
