"""The outbox: where "sent" notifications end up, each once, however often it is delivered."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

Notification = dict[str, str]


class Outbox:
    """A SQLite file. A real one would be a mail provider that takes an idempotency key."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS sent (id TEXT PRIMARY KEY, user TEXT, text TEXT) WITHOUT ROWID")

    def add(self, notifications: Iterable[Notification]) -> int:
        """Send them, durably; returns how many were new."""
        before = self._db.total_changes
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR IGNORE INTO sent VALUES (:id, :user, :text)", notifications)
        self._db.execute("COMMIT")
        return self._db.total_changes - before

    def count(self) -> int:
        """How many were sent."""
        return int(self._db.execute("SELECT count(*) FROM sent").fetchone()[0])

    def all(self) -> Iterator[Notification]:
        """Everything that was sent, by id."""
        for each in self._db.execute("SELECT id, user, text FROM sent ORDER BY id"):
            yield dict(zip(("id", "user", "text"), each, strict=True))

    def close(self) -> None:
        """Close the file."""
        self._db.close()
