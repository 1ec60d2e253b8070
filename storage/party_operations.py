"""What can be asked and answered about producers and consumers. A part of `storage.operations`, with the unions."""

from __future__ import annotations

from typing import Literal

import msgspec

from storage.records import Party

Kind = Literal["producer", "consumer"]


class PutParty(msgspec.Struct, array_like=True, frozen=True, tag=28):
    """Register a producer or a consumer, or say anew what it is called and of what type. → `PartyPut`."""

    kind: Kind
    id: str
    name: str
    type_: str


class DeleteParty(msgspec.Struct, array_like=True, frozen=True, tag=29):
    """Forget a producer or a consumer. What it has sent or holds stays. → `Done`."""

    kind: Kind
    id: str


class GetParty(msgspec.Struct, array_like=True, frozen=True, tag=54):
    """One producer or consumer. → `PartyList` of one, or `Refused`."""

    kind: Kind
    id: str


class ListParties(msgspec.Struct, array_like=True, frozen=True, tag=55):
    """Up to `limit` producers or consumers with an id after `after`, by id. → `PartyList`."""

    kind: Kind
    after: str = ""
    limit: int = 1000


# --- outcomes ---------------------------------------------------------------------------------------------------------


class PartyPut(msgspec.Struct, array_like=True, frozen=True, tag=19):
    """It is registered so. `created`: it was not before. `changed`: something differs now."""

    created: bool
    changed: bool


class PartyList(msgspec.Struct, array_like=True, frozen=True, tag=54):
    """Producers or consumers in order of id. waiting: how many receives of each wait at the leader now; None where it
    was not the leader that was asked."""

    parties: list[Party]
    waiting: list[int] | None = None
