"""Old data opens: how a store of an older format becomes one of this release's.

`MIGRATIONS[n]` turns format n into n + 1. Those that are needed run when a store is opened, in order and in one
transaction: after a crash there is the old store or the new one. A copy from a replica that still has an older format
goes through the same when it is installed; a copy of a newer format is refused.

What a migration has to keep to:

* The same records in, the same bytes out: replicas compare the digests of their states.
* The journal stays as it is. Its entries are the same bytes on every replica, and some are yet to be applied, so an
  operation only ever gains fields that have defaults.
* It reads records with their seals checked, and writes them sealed (`storage.seals`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from storage.disk import UnusableError
from storage.format_2 import to_format_2

FORMAT = 2
"""Version of the layout (`storage.lmdb_tables`) and of the records (`storage.records`). A change of either adds one to
it and a migration below."""

Migration = Callable[[Any, Any], None]
"""Called with the open write transaction and the tables (`storage.lmdb_tables.Tables`)."""

MIGRATIONS: Mapping[int, Migration] = {1: to_format_2}


class NewerFormatError(UnusableError):
    """The store was written by a newer release."""


class OlderFormatError(UnusableError):
    """The store was written by a release from which there is no way to this one."""


def steps(found: int) -> list[Migration]:
    """What turns format `found` into this release's. Raises `NewerFormatError`, `OlderFormatError`."""
    if found > FORMAT:
        raise NewerFormatError(
            f"the store has format {found}, this release knows formats up to {FORMAT}: "
            f"run the release that wrote it, or empty the directory and let the replica copy its peers"
        )
    missing = [number for number in range(found, FORMAT) if number not in MIGRATIONS]
    if missing:
        raise OlderFormatError(
            f"the store has format {found}, this release reads formats from {missing[-1] + 1} to {FORMAT}: "
            f"run a release between the two first, or empty the directory and let the replica copy its peers"
        )
    return [MIGRATIONS[number] for number in range(found, FORMAT)]
