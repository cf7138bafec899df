"""What every kind of source is configured with: its guard, its limit, its name, and how it reaches its registry by TLS."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from lbproxy.config import fields, values
from lbproxy.config.shape import Shape
from lbproxy.discovery.options import DiscoveryOptions, GuardOptions
from lbproxy.wire.tls_options import TlsOptions
from lbproxy.wire.urls import redacted

_GUARD: Final = GuardOptions()
_LIMIT: Final = DiscoveryOptions("", None).limit


class Guard(Shape):
    """When removals are put off."""

    share: fields.Percentage = Field(
        default=values.Part(_GUARD.share), description="An answer that removes more than this is put off"
    )
    minimum: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=_GUARD.minimum, description="An answer that leaves fewer than this is put off"
    )
    hold: fields.Duration = Field(
        default=values.Seconds(_GUARD.hold_s),
        description="For how long, after an error or a restart of the registry",
    )
    empty: Literal["hold", "allow"] = Field(
        default=_GUARD.empty, description="allow: obey an empty answer at once, unless after an error"
    )


class Tls(Shape):
    """How the registry is reached by https."""

    ca: fields.FileName | None = Field(
        default=None, description="PEM file of authorities; null: the system's"
    )
    certificate: fields.FileName | None = Field(default=None, description="PEM file that proves who we are")
    key: fields.FileName | None = Field(
        default=None, description="Its key, where it stands in a file of its own"
    )
    server_name: str | None = Field(default=None, min_length=1, max_length=253)
    verify: bool = Field(default=True, description="false: take any certificate; for tests")

    def options(self) -> TlsOptions:
        return TlsOptions(
            None if self.ca is None else Path(self.ca),
            None if self.certificate is None else Path(self.certificate),
            None if self.key is None else Path(self.key),
            self.server_name,
            self.verify,
        )


def _in_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return values.shown(redacted(value) if isinstance(value, str) else value)


class Source(Shape):
    """The base of every kind. A kind has `type: Literal[NAME]` and gives its own options by `registry`. `SUBJECT` are its keys that say
    what is followed, unlike those that say where and how."""

    SUBJECT: ClassVar[tuple[str, ...]]

    type: str
    guard: Guard = Guard()
    limit: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=_LIMIT, description="Entries taken of one answer; what is beyond is refused and counted"
    )

    def registry(self) -> Any:
        """The options of the kind."""
        raise TypeError(f"{type(self).__name__} names no registry")

    def options(self, name: str) -> DiscoveryOptions:
        guard = self.guard
        return DiscoveryOptions(
            name,
            self.registry(),
            GuardOptions(float(guard.share), guard.minimum, float(guard.hold), guard.empty),
            self.limit,
            self.subject(),
            self.asks_for(),
        )

    def asks_for(self) -> str:
        """What is followed, for people: what of it is not as it is by default."""
        told = {key: getattr(self, key) for key in self.SUBJECT}
        defaults = {key: type(self).model_fields[key].default for key in told}
        return ", ".join(f"{key} {_in_words(each)}" for key, each in told.items() if each != defaults[key])

    def subject(self) -> str:
        """Equal for sources that name the same endpoints. A digest, because it is written to disk, and a URL may hold a secret."""
        told = json.dumps([self.type, *(getattr(self, key) for key in self.SUBJECT)], default=str)
        return blake2b(told.encode(), digest_size=16).hexdigest()
