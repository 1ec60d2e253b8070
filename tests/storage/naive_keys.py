"""Access keys, as the naive model has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from storage import codes
from storage.access_operations import AccessKeyMade, CreateAccessKey, RevokeAccessKey
from storage.operations import Done, Outcome, Refused
from storage.records import AccessKey

if TYPE_CHECKING:
    from tests.storage.naive import Naive


@dataclass
class AccessKeys:
    """Those there are, by id; at `most` so many."""

    model: Naive
    most: int
    known: dict[str, AccessKey] = field(default_factory=dict)

    def do(self, operation: CreateAccessKey | RevokeAccessKey) -> Outcome:
        if isinstance(operation, CreateAccessKey):
            return self.create(operation)
        return self.revoke(operation.id)

    def create(self, operation: CreateAccessKey) -> Outcome:
        if operation.id in self.known:
            return Refused(codes.ACCESS_KEY_EXISTS)
        if len(self.known) >= self.most:
            return Refused(codes.ACCESS_KEY_LIMIT, self.most)
        if "admin" not in operation.roles and not self.admins():
            return Refused(codes.FIRST_ADMIN)
        told = {name: getattr(operation, name) for name in operation.__struct_fields__}
        key = self.known[operation.id] = AccessKey(**told, created_ms=self.model.now_ms)
        return AccessKeyMade(key)

    def revoke(self, key_id: str) -> Outcome:
        if key_id not in self.known:
            return Refused(codes.ACCESS_KEY_NOT_FOUND)
        if self.admins() == [key_id] and len(self.known) > 1:
            return Refused(codes.LAST_ADMIN)
        del self.known[key_id]
        return Done()

    def admins(self) -> list[str]:
        return [key.id for key in self.known.values() if "admin" in key.roles]
