"""Whole replicas on real files, each with its keeper: what is damaged is found, set aside, and got from the others."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from cluster.keeper import Change, Keeper
from cluster.membership import configured
from cluster.replica import Replica
from cluster.scrub import ScrubSettings
from storage.lmdb_store import LmdbStore
from tests.cluster.trio import STEP_S, Trio

STORE_BYTES = 64 * 1024 * 1024


class Ward(Trio):
    """A trio on LMDB stores, with a keeper for each replica. `replicas` also holds those who stand in for one."""

    def __init__(self, directory: Path, names: str = "abc", scrub: ScrubSettings | None = None) -> None:
        super().__init__(names, scrub or ScrubSettings(interval_ms=0))
        self.directory = directory
        self.keepers: dict[str, Keeper] = {}

    def path(self, name: str) -> Path:
        """Where the store of `name` lies."""
        return self.directory / name

    def open_store(self, name: str) -> LmdbStore:
        return LmdbStore(self.path(name), bytes_max=STORE_BYTES, identity=name)

    def _build(self, name: str) -> Replica:
        self.keepers[name] = Keeper(
            name,
            configured(self.names, "c"),
            self.path(name),
            open_store=lambda: self.open_store(name),
            make=lambda membership, store, tally, ailing: self._replica(name, store, tally, ailing, membership),
            post=lambda node, message: self._mail.append((name, node, message)),
            monotonic=lambda: self.now_s,
        )
        return cast(Replica, self.keepers[name].replica)

    def _tick(self, name: str) -> None:
        keeper = self.keepers[name]
        change = keeper.tick()
        if keeper.store is not None:
            for reader in keeper.store._readers:
                reader.join()  # time does not pass by itself here
        if change is Change.NONE:
            return
        self.replicas[name] = cast(Replica, keeper.replica)
        others = [other for other in self.replicas if other != name]
        if change is Change.FORGOTTEN:
            self._mail = type(self._mail)(mail for mail in self._mail if name not in mail[:2])
            for other in others:
                self.replicas[other].disconnected(name)
                self.replicas[other].connected(name, self.replicas[name].born)
        for other in others:
            self.replicas[name].connected(other, self.replicas[other].born)

    def crash(self, name: str) -> None:
        self.stop(name)

    def stop(self, *names: str) -> None:
        for name in names:
            del self.replicas[name]
            self.keepers.pop(name).close()
            for other in self.replicas.values():
                other.disconnected(name)

    def run_until(self, condition: object, patience_s: float = 30.0) -> None:
        """Let time pass until `condition()` holds."""
        assert callable(condition)
        for _ in range(round(patience_s / STEP_S)):
            if condition():
                return
            self.run(STEP_S)
        raise AssertionError(f"it does not come about within {patience_s} s")

    def scrub_now(self) -> None:
        """Have a pass done, and wait until everybody who is up has read everything, or is known to be damaged."""
        before = {name: keeper.tally.passes for name, keeper in self.keepers.items()}
        self.replicas[self.leader].scrub.ask()
        self.run_until(lambda: all(self._is_through(name, before[name]) for name in self.keepers))

    def _is_through(self, name: str, passes: int) -> bool:
        keeper = self.keepers[name]
        return keeper.tally.passes > passes or bool(keeper.tally.damages)

    def digests(self) -> set[tuple[int, bytes]]:
        """Applied index and digest of everybody who is up."""
        found = set()
        for keeper in self.keepers.values():
            assert keeper.store is not None
            sweep = keeper.store.start_sweep()
            sweep.join()
            assert sweep.ready
            found.add((sweep.result.applied[0], sweep.result.digest))
        return found

    def close(self) -> None:
        self.stop(*list(self.replicas))
