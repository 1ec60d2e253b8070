"""Who may come in: every request of the native API, before it is read, and what both APIs share of that.

As long as there is no access key, programs on this machine are let in as they are, and nobody else. As soon as there is
one, every request must come with one: by HTTP Basic, or signed as AWS's clients sign (`api.aws.sigv4`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import re
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import structlog
from aiohttp import web
from multidict import istr

from api.aws import sigv4
from api.aws.errors import AwsError
from api.aws.sigv4 import HttpRequest
from api.problem import Problem
from api.request import SETTINGS, read_bytes
from api.rights import NAMED, ROUTES, TOLD_BY_THE_NODE, AccessKey, Grant, Need, Right
from api.sealing import SealError, SealFile
from cluster.client import Client
from cluster.trouble import ClusterTrouble
from storage import records
from storage.access_operations import AccessKeyList, ListAccessKeys
from storage.operations import Operation

SERVICE = "trimaran"
"""What requests of the native API are signed for, if they are."""
ASK_AGAIN_S = 0.2
"""Who names a key that is not known waits until the cluster is asked, which is no more often than so: the key may have
been made a moment ago, but anybody may name one."""
_PROXIED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
_BROWSED = ("Origin", "Sec-Fetch-Site")
_NOT_ITSELF = tuple(istr(name) for name in (*_PROXIED, *_BROWSED))
_log = structlog.get_logger()
_O = TypeVar("_O", bound=Operation)


# --- the keys ---------------------------------------------------------------------------------------------------------


class Known(NamedTuple):
    """The keys as of the log entry that last changed them. `trouble`: why there may have been a later one."""

    keys: Mapping[str, records.AccessKey]
    changed_index: int
    trouble: ClusterTrouble | None = None


NONE = Known({}, 0)


class KeyRing:
    """The cluster's access keys, as this gateway knows them.

    The leader reports which log entry last changed them, with every change at once: a copy of that entry or a later one
    is used, any other is fetched anew before it decides anything. Without a leader they are asked for each time.
    """

    def __init__(self, client: Client, seal: SealFile, timeout_ms: int) -> None:
        self._client, self._seal, self._timeout_ms = client, seal, timeout_ms
        self._known = NONE
        self._fetching: asyncio.Task[None] | None = None
        self._asked_again_s = -ASK_AGAIN_S
        self._asking_again: asyncio.Task[None] | None = None
        self._opened: dict[bytes, AccessKey] = {}

    async def known(self, *, here: bool = False) -> Known:
        """All keys. `here`: for what this node answers by itself, for which its own replica may have to do.

        Raises `ClusterTrouble`.
        """
        changed_index = self._client.access_index()
        if changed_index == 0:
            return NONE
        if changed_index is not None and changed_index <= self._known.changed_index:
            return self._known
        if here and changed_index is None:
            return await self._look(ClusterTrouble("not_done", "no leader is known"))
        try:
            await self._fetch()
            while self._known.changed_index < (self._client.access_index() or 0):
                await self._fetch()
        except ClusterTrouble as trouble:
            if not here:
                raise
            return await self._look(trouble)
        return self._known

    async def find(self, key_id: str, known: Known) -> AccessKey | None:
        """The key of this id; one that was made a moment ago is known too. Raises `ClusterTrouble`."""
        found = known.keys.get(key_id)
        if found is None and known.trouble is None:
            if self._asking_again is None:
                self._asking_again = asyncio.create_task(self._ask_again())
                self._asking_again.add_done_callback(_heed)
            await asyncio.shield(self._asking_again)
            found = self._known.keys.get(key_id)
        return None if found is None else self._open(found)

    def seal(self, key_id: str, secret: str) -> bytes:
        """The secret of a new key, as it is kept. Raises `SealError`."""
        return self._seal.sealer().seal(key_id, secret)

    def unseal(self, key: records.AccessKey) -> str:
        """The secret of a key that is kept. Raises `SealError`."""
        return self._seal.sealer().open(key.id, key.sealed)

    def _open(self, key: records.AccessKey) -> AccessKey:
        opened = self._opened.get(key.sealed)
        if opened is None:
            try:
                secret = self.unseal(key)
            except SealError as error:
                _log.error("cannot open an access key", key=key.id, cause=str(error))
                raise ClusterTrouble("not_done", f"this node cannot tell who asks: {error}") from error
            opened = self._opened[key.sealed] = AccessKey(key.id, secret, tuple(key.roles), tuple(key.queues))
        return opened

    async def _fetch(self) -> None:
        """Ask the cluster. Whoever asks meanwhile shares the answer."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_once())
            self._fetching.add_done_callback(self._fetched)
        await asyncio.shield(self._fetching)

    async def _ask_again(self) -> None:
        await asyncio.sleep(self._asked_again_s + ASK_AGAIN_S - time.monotonic())
        self._asking_again, self._asked_again_s = None, time.monotonic()  # who comes later needs a later answer
        await self._fetch_once()

    async def _fetch_once(self) -> None:
        reply = await self._client.submit(ListAccessKeys(), timeout_ms=self._timeout_ms)
        assert isinstance(reply.outcome, AccessKeyList)
        if reply.outcome.changed_index >= self._known.changed_index:
            self._known = _known(reply.outcome)
            sealed = {key.sealed for key in reply.outcome.keys}
            self._opened = {each: key for each, key in self._opened.items() if each in sealed}

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        _heed(task)

    async def _look(self, trouble: ClusterTrouble) -> Known:
        """The keys as this node's own replica has them: good enough for what it holds itself, which is as old."""
        try:
            outcome = (await self._client.look(ListAccessKeys(), timeout_ms=self._timeout_ms)).outcome
        except ClusterTrouble:
            return self._known._replace(trouble=trouble)  # then there is nothing to tell but that
        if isinstance(outcome, AccessKeyList) and outcome.changed_index > self._known.changed_index:
            return _known(outcome, trouble)
        return self._known._replace(trouble=trouble)


def _heed(task: asyncio.Task[None]) -> None:
    """Those who wait for the task are told how it failed; perhaps nobody does any more."""
    if not task.cancelled():
        task.exception()


def _known(told: AccessKeyList, trouble: ClusterTrouble | None = None) -> Known:
    return Known({key.id: key for key in told.keys}, told.changed_index, trouble)


KEYS = web.AppKey("keys", KeyRing)
GRANT = web.RequestKey("grant", Grant)


# --- the native API ---------------------------------------------------------------------------------------------------


@web.middleware
async def admit(request: web.Request, handler: Any) -> web.StreamResponse:
    """Let in whoever may; tell all others why not, and what to do."""
    resource = request.match_info.route.resource
    if resource is not None:  # there is such a route
        right = ROUTES.get((request.method, resource.canonical), Right.ADMINISTER)
        if right is not Right.OPEN:
            grant = request[GRANT] = await _identify(request, right)
            if grant.key is not None:
                named = [request.match_info[each] for each in NAMED if each in request.match_info]
                for need in [Need(right, name) for name in named] or [Need(right)]:
                    if not grant.allows(need):
                        raise forbidden(grant, need)
    response: web.StreamResponse = await handler(request)
    return response


def admitted(request: web.Request, operation: _O, *, here: bool = False) -> _O:
    """The operation as the sender of the request may have it done. `here`: by this node's own replica.

    Raises `Problem` if it may not; and `ClusterTrouble` when it is not known for sure who asks.
    """
    grant = request[GRANT]
    if grant.trouble is not None and not here:
        raise grant.trouble
    need = grant.missing(operation)
    if need is not None:
        raise forbidden(grant, need)
    return grant.bound(operation)


def forbidden(grant: Grant, need: Need) -> Problem:
    """The refusal of what a key does not allow."""
    assert grant.key is not None
    roles, queues = " and ".join(grant.key.roles), ", ".join(grant.key.queues)
    where = "" if need.name is None else f" on {need.name[:100]}"
    return Problem(
        403,
        "forbidden",
        "The access key does not allow this",
        f"{grant.key.id}, {roles} of {queues}, has not the right to {need.right.name.lower()}{where}.",
        remedy="Use a key that may; an admin makes one with `trimaran keys create`.",
    )


async def _identify(request: web.Request, right: Right) -> Grant:
    ring = request.app[KEYS]
    here = right in TOLD_BY_THE_NODE or (request.method == "GET" and request.query.get("consistency") == "local")
    known = await ring.known(here=here)
    if not known.keys:
        if is_local(request) or request.app[SETTINGS].insecure_listen:
            return Grant(None, known.trouble)
        raise _unknown(
            "There are no access keys yet, and without them only programs on the same machine are served, which ask "
            "for it by its address or as localhost.",
            "Make the first on a node's own machine: trimaran keys create --role admin.",
        )
    authorization = request.headers.get("Authorization", "")
    scheme = authorization.partition(" ")[0].lower()
    if scheme == "basic":
        key_id, secret = _basic(authorization)
        key = await ring.find(key_id, known)
        if not hmac.compare_digest(secret, b"" if key is None else key.secret.encode()) or key is None:
            raise _unknown("There is no such access key, or its secret is another.")
        return Grant(key, known.trouble)
    if scheme == sigv4.ALGORITHM.lower():
        return Grant(await _signed(request, ring, known), known.trouble)
    raise _unknown("The Authorization is of another kind." if authorization else "The request comes without a key.")


def _basic(authorization: str) -> tuple[str, bytes]:
    try:
        key_id, colon, secret = base64.b64decode(authorization[6:].strip(), validate=True).partition(b":")
        if colon:
            return key_id.decode("ascii"), secret
    except (binascii.Error, UnicodeError, ValueError):
        pass
    raise _unknown("The Authorization header cannot be read.")


async def _signed(request: web.Request, ring: KeyRing, known: Known) -> AccessKey:
    try:
        claim = sigv4.read(http_request(request, b""))
        assert claim is not None, "there is an Authorization header"
        key = await ring.find(claim.access_key_id, known)
        if key is None:
            raise _unknown("There is no such access key.")
        sigv4.verify(claim, http_request(request, await read_bytes(request)), key.secret, SERVICE, datetime.now(UTC))
    except AwsError as error:
        raise _unknown(error.message) from None
    return key


def _unknown(detail: str, remedy: str = "") -> Problem:
    advice = "Send the key's id and secret by HTTP Basic, or sign with them (AWS Signature 4, service trimaran)."
    problem = Problem(401, "unauthorized", "It is not known who asks", detail, remedy=remedy or advice)
    problem.headers["WWW-Authenticate"] = 'Basic realm="trimaran"'
    return problem


# --- what both APIs ask of a request ----------------------------------------------------------------------------------


def http_request(request: web.Request, body: bytes) -> HttpRequest:
    """The request as its sender signed it."""
    headers = list(request.headers.items())
    if request.app[SETTINGS].trust_forwarded and "X-Forwarded-Host" in request.headers:
        headers = [pair for pair in headers if pair[0].lower() != "host"]
        headers.append(("Host", first(request.headers["X-Forwarded-Host"])))
    return HttpRequest(request.method, request.raw_path, headers, body)


def first(listed: str) -> str:
    """What the proxy nearest to the client has written."""
    return listed.partition(",")[0].strip()


def is_local(request: web.Request) -> bool:
    """Whether a program on this machine asks: not somebody behind a proxy on it, and no page in a browser on it."""
    headers = request.headers
    for name in _NOT_ITSELF:
        if name in headers:
            return False
    return _is_loopback(request.remote or "") and _is_own(headers.get("Host", ""))


@lru_cache(maxsize=1024)
def _is_own(host: str) -> bool:
    """Whether a Host header names this machine, by an address or a name that nobody else can have.

    The owner of a domain may have it lead to 127.0.0.1: a browser then takes the node for that page's own server, whose
    GETs come without an Origin.
    """
    name = re.sub(r":\d*$", "", host).lower()
    if "." not in name or name.endswith(".localhost") or name == socket.gethostname().lower():
        return True
    return _is_address(name.removeprefix("[").removesuffix("]"))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1024)
def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
