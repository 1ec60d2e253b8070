"""Producers and consumers: who is registered, and when each was last seen.

Anybody may send and receive without being registered. Of those who are, it is noted when they last sent or were
delivered something, in the entry in which that happens: to the minute, so that it costs next to nothing.
"""

from __future__ import annotations

from storage import records
from storage.codes import PARTY_LIMIT, PARTY_NOT_FOUND
from storage.limits import PARTIES_MAX, PARTY_SEEN_STEP_MS
from storage.operations import Done, Outcome, Refused
from storage.party_operations import GetParty, Kind, ListParties, PartyList, PartyPut, PutParty
from storage.records import Party
from storage.state import State
from storage.turn import Turn


def party_prefix(kind: str) -> bytes:
    """What the keys of all producers, or of all consumers, begin with."""
    return b"p" + kind[:1].encode()


def party_key(kind: str, party_id: str) -> bytes:
    """Key of a producer or consumer."""
    return party_prefix(kind) + party_id.encode()


def put_party(turn: Turn, operation: PutParty) -> Outcome:
    """Register a producer or a consumer."""
    key = party_key(operation.kind, operation.id)
    found = turn.state.get(key)
    if found is None:
        if turn.shard.parties >= PARTIES_MAX:
            return Refused(PARTY_LIMIT, PARTIES_MAX)
        turn.shard.parties += 1
        party = Party(operation.id, operation.name, operation.type_, turn.now_ms)
        turn.state.put(key, records.encode(party))
        return PartyPut(True, True)
    party = records.decode_party(found)
    if (party.name, party.type) == (operation.name, operation.type_):
        return PartyPut(False, False)
    party.name, party.type = operation.name, operation.type_
    turn.state.put(key, records.encode(party))
    return PartyPut(False, True)


def delete_party(turn: Turn, kind: Kind, party_id: str) -> Outcome:
    """Forget a producer or a consumer."""
    key = party_key(kind, party_id)
    if turn.state.get(key) is None:
        return Refused(PARTY_NOT_FOUND)
    turn.state.delete(key)
    turn.shard.parties -= 1
    return Done()


def note_seen(turn: Turn, kind: Kind, party_id: str) -> None:
    """It has sent, or was delivered something. Nothing is noted of who is not registered."""
    key = party_key(kind, party_id)
    found = turn.state.get(key)
    if found is None:
        return
    party = records.decode_party(found)
    if not party.seen_ms or party.seen_ms + PARTY_SEEN_STEP_MS <= turn.now_ms:
        party.seen_ms = turn.now_ms
        turn.state.put(key, records.encode(party))


# --- reading ----------------------------------------------------------------------------------------------------------


def answer(state: State, query: GetParty | ListParties) -> Outcome:
    """One of them, or a page."""
    if isinstance(query, GetParty):
        found = state.get(party_key(query.kind, query.id))
        return Refused(PARTY_NOT_FOUND) if found is None else PartyList([records.decode_party(found)])
    parties: list[Party] = []
    for _, record in state.scan(party_prefix(query.kind), query.after.encode()):
        party = records.decode_party(record)
        if party.id == query.after:
            continue
        if len(parties) >= query.limit:
            break
        parties.append(party)
    return PartyList(parties)
