"""Producers and consumers, as the naive model has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from storage import codes
from storage.operations import Done, Outcome, Refused
from storage.party_operations import DeleteParty, PartyPut, PutParty
from storage.records import Party

if TYPE_CHECKING:
    from tests.storage.naive import Naive

PARTIES_MAX = 3
MINUTE_MS = 60_000


@dataclass
class Parties:
    """Who is registered, by kind and id."""

    model: Naive
    known: dict[tuple[str, str], Party] = field(default_factory=dict)

    def do(self, operation: PutParty | DeleteParty) -> Outcome:
        key = operation.kind, operation.id
        party = self.known.get(key)
        if isinstance(operation, DeleteParty):
            return Refused(codes.PARTY_NOT_FOUND) if self.known.pop(key, None) is None else Done()
        if party is None:
            if len(self.known) >= PARTIES_MAX:
                return Refused(codes.PARTY_LIMIT, PARTIES_MAX)
            self.known[key] = Party(operation.id, operation.name, operation.type_, self.model.now_ms)
            return PartyPut(True, True)
        changed = (party.name, party.type) != (operation.name, operation.type_)
        self.known[key] = Party(party.id, operation.name, operation.type_, party.created_ms, party.seen_ms)
        return PartyPut(False, changed)

    def saw(self, kind: str, party_id: str) -> None:
        party = self.known.get((kind, party_id))
        if party is not None and (not party.seen_ms or self.model.now_ms - party.seen_ms >= MINUTE_MS):
            told = (party.id, party.name, party.type, party.created_ms, self.model.now_ms)
            self.known[kind, party_id] = Party(*told)
