"""Reading requests strictly: one place for content types, JSON's traps, names, limits, and the Idempotency-Key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from api.problem import SERVER, Problem, invalid
from storage.limits import OPERATION_BYTES_MAX
from storage.settings import QUEUE_NAME

JSON, MSGPACK = "application/json", "application/msgpack"
_JSON_HEADERS, _MSGPACK_HEADERS = (
    CIMultiDict({"Content-Type": kind, "Cache-Control": "no-store", "Server": SERVER}) for kind in (JSON, MSGPACK)
)
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}", re.ASCII)
_LIMIT = re.compile(r"(?:<=|>=) (-?\d+)$")
_PATH = re.compile(r"\$[^`]*")
_SPACED_COLONS = (b" :", b"\t:", b"\n:", b"\r:")
_SAID_BACK_MAX = 300
"""Characters of a client's own words that an answer repeats."""


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """What a request's body asks for. A field left out is `UNSET` or has its default."""

    def members(self) -> int:
        """How many members the JSON at least had: the nearer to the truth, the cheaper the search for duplicates."""
        return 1


_W = TypeVar("_W", bound=msgspec.Struct)
_P = TypeVar("_P", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Deadlines and limits of a gateway's HTTP side; see `api.config` for their reasons."""

    request_timeout_ms: int = 10_000
    header_timeout_ms: int = 10_000
    body_timeout_ms: int = 30_000
    connections_max: int = 10_000
    request_bytes_max: int = OPERATION_BYTES_MAX
    idle_timeout_ms: int = 75_000  # longer than the 60 s proxies keep theirs, so that it is they who close first
    public_url: str = ""
    trust_forwarded: bool = False
    insecure_listen: bool = False
    seal_key: Path | None = None
    connections_per_address_max: int = 5_000
    gateway: str = "gateway-0"


MESSAGE_ID_MAX = 2**53 - 1
"""Ids are numbers in JSON, and many clients keep those as doubles."""
SETTINGS = web.AppKey("settings", HttpSettings)


def queue_name(request: web.Request, what: str = "queue") -> str:
    """The queue in the path, or what else has names like queues. Raises `Problem`."""
    name = request.match_info[what]
    check_queue(name, what, what)
    return name


def check_queue(name: str, field: str, what: str = "queue") -> None:
    """Raises `Problem` for what cannot be a queue's name, or that of what else has names like queues."""
    if not QUEUE_NAME.fullmatch(name):
        remedy = "Use 1 to 80 of A-Z a-z 0-9 _ - and, if you like, .fifo at the end."
        raise invalid(field, f"this is no name for a {what}", remedy, 80)


def path_number(request: web.Request, what: str, remedy: str) -> int:
    """A message's id or a task's number in the path. Raises `Problem`."""
    text = request.match_info[what]
    if not re.fullmatch(r"[0-9]{1,16}", text, re.ASCII) or not 1 <= int(text) <= MESSAGE_ID_MAX:
        raise invalid(what, f"a number from 1 to {MESSAGE_ID_MAX} is needed", remedy, MESSAGE_ID_MAX)
    return int(text)


def integer(request: web.Request, name: str, default: int, lowest: int, highest: int) -> int:
    """An integer of the query string. Raises `Problem`."""
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII) or not lowest <= int(text) <= highest:
        raise invalid(name, f"an integer from {lowest} to {highest} is needed", "Change it.", highest)
    return int(text)


def choice(request: web.Request, name: str, *choices: str) -> str:
    """One of the words that are allowed in the query string; the first without any. Raises `Problem`."""
    text = request.query.get(name, choices[0])
    if text not in choices:
        raise invalid(name, f"one of {', '.join(choices)} is needed", "Change it, or leave it out.")
    return text


def media_type(request: web.Request) -> str:
    """The media type of the request's body. The two that are usual are known without parsing."""
    told = request.headers.get("Content-Type")
    return told if told in (JSON, MSGPACK) else request.content_type


async def read_bytes(request: web.Request) -> bytes:
    """The request's body, within its size and its time. Raises `Problem`."""
    if "Content-Encoding" in request.headers:
        raise _unreadable("Compressed bodies are not read.", "Send the body as it is, without Content-Encoding.")
    try:
        if request.content.is_eof():
            return await request.read()
        async with asyncio.timeout(request.app[SETTINGS].body_timeout_ms / 1000):
            return await request.read()
    except TimeoutError:
        raise _too_slow(request.app[SETTINGS].body_timeout_ms) from None
    except web.HTTPRequestEntityTooLarge:
        raise too_large(request.app[SETTINGS].request_bytes_max) from None


def _too_slow(limit_ms: int) -> Problem:
    remedy = "Send it again in smaller batches, or over a faster connection."
    more: dict[str, Any] = {"limit": limit_ms, "remedy": remedy}
    return Problem(408, "slow-body", "The body came too slowly", f"It took more than {limit_ms} ms.", **more)


def too_large(limit: int) -> Problem:
    """The problem of a request that carries more than `limit` bytes."""
    return invalid("$", f"at most {limit} bytes are read", "Send smaller batches.", limit, 413)


async def read(request: web.Request, kind: type[_W]) -> _W:
    """The request's body as a `kind`. Nothing at all is taken for {}. Raises `Problem`."""
    return await read_either(request, kind, kind)


async def read_either(request: web.Request, kind: type[_W], packed: type[_P]) -> _W | _P:
    """The request's body as a `kind`, in msgpack as a `packed`. Nothing at all is taken for {}. Raises `Problem`."""
    data, form = await read_bytes(request), media_type(request)
    if not data:
        return _decoded(b"{}", kind, msgspec.json)
    if form == MSGPACK:
        return _decoded(data, packed, msgspec.msgpack)
    if form != JSON:
        # Anything else is refused, not guessed: what a browser sends to a foreign site without asking is not JSON.
        said = request.headers.get("Content-Type", "A body without a Content-Type")[:_SAID_BACK_MAX]
        said = said.encode(errors="replace").decode()  # a header may be any bytes
        raise _unreadable(f"{said} cannot be read.", f"Send {JSON} or {MSGPACK}.")
    wish = _decoded(data, kind, msgspec.json)
    if data.count(b":") > 1 and _may_repeat_members(data, wish.members() if isinstance(wish, Wish) else 1):
        _refuse_repeated_members(data)
    return wish


@cache
def _decoder(kind: type[msgspec.Struct], form: Any) -> Callable[[bytes], Any]:
    decode: Callable[[bytes], Any] = form.Decoder(kind).decode
    return decode


def _decoded(data: bytes, kind: type[_W], form: ModuleType) -> _W:
    try:
        wish: _W = _decoder(kind, form)(data)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at ")
        path = _PATH.search(where)
        limit = _LIMIT.search(message)
        remedy = "See /openapi.json for what is expected."
        raise invalid(
            path[0] if path else "$", message[:_SAID_BACK_MAX], remedy, int(limit[1]) if limit else None
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if form is msgspec.msgpack:
            raise invalid("$", "this is not msgpack", "Send one map.") from None
        raise invalid("$", "this is not JSON", "Send one JSON object in UTF-8, without lone surrogates.") from None
    return wish


def _may_repeat_members(data: bytes, members: int) -> bool:
    """Whether JSON of `members` different members could hold more: a bound that costs a few passes of `count`.

    Every member has a colon, and before it, but for spaces, a quote that no backslash escapes. Colons behind an escaped
    quote are text, unless that backslash is itself escaped.
    """
    if data.count(b":") <= members:
        return False
    if b'\\\\":' in data:
        return True
    colons = data.count(b'":') - data.count(b'\\":') + sum(data.count(spaced) for spaced in _SPACED_COLONS)
    return colons > members


def _refuse_repeated_members(data: bytes) -> None:
    json.loads(data, object_pairs_hook=_refuse_repeated)


def _refuse_repeated(members: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise invalid("$", f"the member {name[:_SAID_BACK_MAX]!r} stands twice", "Name each member once.")
        seen.add(name)


def _unreadable(detail: str, remedy: str) -> Problem:
    return Problem(415, "media-type", "The content cannot be read", detail, remedy=remedy)


def idempotency_key(request: web.Request) -> str | None:
    """The Idempotency-Key, if there is one. Raises `Problem`."""
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return None
    key = header[1:-1] if len(header) > 1 and header[0] == header[-1] == '"' else header
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise invalid("Idempotency-Key", "1 to 255 visible ASCII characters are needed", "Send a UUID.", 255)
    return key


async def idempotency(request: web.Request, key: str, part: int = 0) -> tuple[bytes, bytes]:
    """Digests of the Idempotency-Key, bound to method and path, and of the whole request.

    `part` counts the operations of a request that needs several: each takes effect once, under a key of its own.
    """
    scope = f"{request.method} {request.path}\n".encode()
    named = hashlib.blake2b(scope + key.encode(), digest_size=16, salt=bytes([part])).digest()
    event = [f"{name.lower()}: {value}\n" for name, value in request.headers.items() if name.lower().startswith("ce-")]
    told = scope + "".join(sorted(event)).encode(errors="surrogateescape") + await read_bytes(request)
    whole = hashlib.blake2b(told, digest_size=16).digest()
    return named, whole


def wants_msgpack(request: web.Request) -> bool:
    """Whether the answer should be msgpack: asked for by Accept, or, without one, by the request's own type."""
    accept = request.headers.get("Accept", "*/*")
    return MSGPACK in accept or ("*/*" in accept and media_type(request) == MSGPACK)


def answer(
    request: web.Request, document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`document` in the form the client wants, perhaps with further headers."""
    if wants_msgpack(request):
        response = web.Response(status=status, body=msgspec.msgpack.encode(document), headers=_MSGPACK_HEADERS)
    else:
        response = answer_json(document, status)
    if headers:
        response.headers.update(headers)
    return response


def answer_json(document: Any, status: int = 200) -> web.Response:
    """`document` as JSON, whatever the client wants."""
    return web.Response(status=status, body=msgspec.json.encode(document), headers=_JSON_HEADERS)
