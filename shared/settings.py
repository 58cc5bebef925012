"""Settings: one frozen object per service, read once from the environment, each with its meaning beside it.

A service's `config.py` declares a frozen dataclass whose fields are made with `setting(...)`; `read_settings` fills it. An
unusable value stops the process, whichever command it runs, with one clear line. `settings_table` makes the README's table from
the same words, and a test compares them.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")


class BadSetting(Exception):  # noqa: N818  # named for its reason
    """A setting cannot be used; the message says which and why, in one line."""


def setting(meaning: str, *, default: Any = MISSING, reads: Callable[[str], Any] = str) -> Any:
    """One setting: what it is for (with its unit), its default, and how its text is read."""
    return field(default=default, metadata={"meaning": meaning, "reads": reads}) if default is not MISSING else field(
        metadata={"meaning": meaning, "reads": reads}
    )  # fmt: skip


# ---- How a setting's text is read: each raises `ValueError` with what was expected -------------------------------------------


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
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e7:
        msg = "expected a number of seconds above zero"
        raise ValueError(msg)
    return value


def whole(text: str) -> int:
    """A whole number from 0 to 9."""
    if not re.fullmatch(r"[0-9]", text.strip()):
        raise ValueError("expected a whole number from 0 to 9")
    return int(text)


def times(text: str) -> float:
    """A factor; 0 switches something off."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise ValueError("expected a number, such as 1, 0.5 or 0")
    return value


def host_names(text: str) -> tuple[str, ...]:
    """Names of hosts with commas between, without ports."""
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    if not all(re.fullmatch(r"[a-z0-9_-][a-z0-9._-]*|[0-9a-f:]+", name) for name in names):
        raise ValueError("expected names of hosts with commas between, such as hub,hub.example.org")
    return names


def folder(text: str) -> Path:
    """A folder's path, made absolute."""
    return Path(text).expanduser().absolute()


def log_level(text: str) -> str:
    """One of the four levels of `logging` that we use."""
    level = text.strip().upper()
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        msg = "expected DEBUG, INFO, WARNING or ERROR"
        raise ValueError(msg)
    return level


def web_address(text: str) -> str:
    """`https://name` or `http://name:port`, without what comes behind a last slash."""
    return address_of("http", "https")(text).rstrip("/")


def address_of(*schemes: str) -> Callable[[str], str]:
    """Reads an address that begins with one of these words and names a host, or for SQLite a file."""

    def read(text: str) -> str:
        try:
            parts = urlsplit(text)
            if parts.scheme == "sqlite":
                complete = bool(parts.path.strip("/"))
            else:
                complete = bool(parts.hostname and parts.port != 0 and not re.search(r"\s", text))
                (parts.hostname or "").encode("idna")
        except ValueError:  # no port, no IPv6 address, no name
            complete = False
        if not complete or parts.scheme.partition("+")[0] not in schemes:
            msg = "expected " + " or ".join("sqlite:///path" if scheme == "sqlite" else f"{scheme}://host…" for scheme in schemes)
            raise ValueError(msg)
        return text

    return read


def failpoint_name(text: str) -> str:
    """`relay.published`, or `relay.published:3` for its third passing."""
    if not re.fullmatch(r"[a-z_.]+(:[1-9][0-9]*)?", text):
        msg = "expected a failpoint's name"
        raise ValueError(msg)
    return text


# ---- Reading them all, and telling about them all ----------------------------------------------------------------------------


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
            msg = f"{name}={_shown(text)!r} cannot be used: {error}. It says: {one.metadata['meaning']}"
            raise BadSetting(msg) from None
    unknown = sorted(name for name in environ if name.startswith(prefix + "_") and name not in _names(cls, prefix))
    if unknown:
        msg = f"{unknown[0]} is no setting. See the table in README.md for the names"
        raise BadSetting(msg)
    return cls(**values)


def settings_table(cls: Any, prefix: str) -> str:
    """The settings as a Markdown table: name, meaning, default."""
    lines = ["| setting | meaning | when it is not set |", "|---|---|---|"]
    for one in fields(cls):
        shown = _default(one.default)
        lines.append(f"| `{prefix}_{one.name.upper()}` | {one.metadata['meaning']} | {shown} |".replace("<", "&lt;"))
    return "\n".join(lines)


def _default(value: Any) -> str:
    if value is MISSING:
        return "must be set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _names(cls: Any, prefix: str) -> set[str]:
    return {f"{prefix}_{one.name.upper()}" for one in fields(cls)}


def _shown(text: str) -> str:
    """Without the password an address may carry."""
    return re.sub(r"://.*@", "://…@", text, flags=re.DOTALL)  # also one with signs that an address may not hold
