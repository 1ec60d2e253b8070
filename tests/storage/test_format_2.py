"""A store that the release before has written opens, with every message where it stood."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from storage import machine, migrations, queries
from storage.block import parts
from storage.lmdb_store import LmdbStore
from storage.message_operations import Browse, Page
from storage.operations import Receive, Received, encode_entry, encode_item
from tests.storage.harness import set_applied, tick
from tests.storage.life import check_records

WRITTEN = json.loads((Path(__file__).parent / "format_1.json").read_text())
"""What release 0.1 wrote: its state, and its journal from the first entry on."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LmdbStore:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "FORMAT", 1)
        patch.setattr(migrations, "MIGRATIONS", {})
        old = LmdbStore(tmp_path, bytes_max=1 << 24)
        with tick(old):
            for index, payload in enumerate(WRITTEN["journal"], 1):
                old.append(index, 1, base64.b64decode(payload))
            for key, value in WRITTEN["state"]:
                old.put(base64.b64decode(key), base64.b64decode(value))
            set_applied(old, WRITTEN["applied"], 1)
        old.close()
    return LmdbStore(tmp_path, bytes_max=1 << 24)


def test_every_message_is_where_it_stood(store: LmdbStore) -> None:
    check_records(store)
    found = {}
    for queue in ("orders", "mails", "empty"):
        page, block = queries.answer(store, Browse(queue, 0, 100))
        assert isinstance(page, Page)
        bodies = [bytes(part.body) for part in parts(block, len(page.messages))] if page.messages else []
        found[queue] = [
            (m.message_id, body, m.state, m.attempts) for m, body in zip(page.messages, bodies, strict=True)
        ]
    assert found == {
        "orders": [
            (2, b"o2", "leased", 1),
            (3, b"o3", "delayed", 1),
            (4, b"o4", "ready", 0),
            (5, b"o5", "ready", 0),
            (6, b"o6", "ready", 0),
        ],
        "mails": [(1, b"m1", "ready", 0), (2, b"m2", "ready", 0)],
        "empty": [],
    }
    store.close()


def test_life_goes_on(store: LmdbStore) -> None:
    entry = encode_entry(1_700_000_100_000, [encode_item(9, 1, Receive("orders", 10, 0, 333))])
    with tick(store):
        store.append(store.last_index + 1, 2, entry)
        (applied,) = machine.apply(store, store.last_index, entry).applied
    assert isinstance(applied.outcome, Received)
    assert [(each.message_id, each.count) for each in applied.outcome.deliveries] == [(4, 2), (6, 1)]
    check_records(store)
    store.close()
