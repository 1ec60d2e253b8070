"""Reading requests strictly: one place for content types, JSON's traps, names, limits, and the Idempotency-Key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from api.problem import Problem, invalid
from storage.limits import OPERATION_BYTES_MAX
from storage.settings import QUEUE_NAME

JSON, MSGPACK = "application/json", "application/msgpack"
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}", re.ASCII)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Deadlines and limits of a gateway's HTTP side; see `api.config` for their reasons."""

    request_timeout_ms: int = 10_000
    header_timeout_ms: int = 10_000
    body_timeout_ms: int = 30_000
    connections_max: int = 10_000
    request_bytes_max: int = OPERATION_BYTES_MAX


SETTINGS = web.AppKey("settings", HttpSettings)


def queue_name(request: web.Request) -> str:
    """The queue in the path. Raises `Problem`."""
    name = request.match_info["queue"]
    if not QUEUE_NAME.fullmatch(name):
        remedy = "Use 1 to 80 of A-Z a-z 0-9 _ - and, if you like, .fifo at the end."
        raise invalid("queue", "this is no name for a queue", remedy, 80)
    return name


def integer(request: web.Request, name: str, default: int, lowest: int, highest: int) -> int:
    """An integer of the query string. Raises `Problem`."""
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII) or not lowest <= int(text) <= highest:
        raise invalid(name, f"an integer from {lowest} to {highest} is needed", "Change it.", highest)
    return int(text)


async def read_bytes(request: web.Request) -> bytes:
    """The request's body, within its size and its time. Raises `Problem`."""
    settings = request.config_dict[SETTINGS]
    try:
        async with asyncio.timeout(settings.body_timeout_ms / 1000):
            return await request.read()
    except TimeoutError:
        raise Problem(
            408, "slow-body", "The body came too slowly", f"It took more than {settings.body_timeout_ms} ms."
        ) from None
    except web.HTTPRequestEntityTooLarge:
        limit = settings.request_bytes_max
        raise invalid("$", f"at most {limit} bytes are read", "Send smaller batches.", limit, 413) from None


async def read(request: web.Request, kind: type[_T]) -> _T:
    """The request's body as a `kind`. Nothing at all is taken for {}. Raises `Problem`."""
    return convert(await read_any(request), kind)


async def read_any(request: web.Request) -> Any:
    """The request's body, decoded. Raises `Problem`."""
    data = await read_bytes(request)
    if not data:
        return {}
    if request.content_type == MSGPACK:
        try:
            return msgspec.msgpack.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise invalid("$", "this is not msgpack", "Send one msgpack map.") from None
    if request.content_type not in (JSON, "application/octet-stream", "application/x-www-form-urlencoded"):
        raise Problem(
            415,
            "media-type",
            "The content type is not known",
            f"{request.content_type} cannot be read.",
            remedy=f"Send {JSON} or {MSGPACK}.",
        )
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _TrapError as trap:
        raise invalid("$", str(trap), "Send plain JSON, each member once.") from None
    except (ValueError, RecursionError):
        raise invalid("$", "this is not JSON", "Send one JSON object in UTF-8.") from None


def convert(value: Any, kind: type[_T], field: str = "$") -> _T:
    """`value` as a `kind`. Raises `Problem`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise invalid(path.rstrip("`") or field, message, "See /openapi.json for what is expected.") from None


class _TrapError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _TrapError(f"the member {twice[:100]!a} stands twice")
    return members


def _no_constant(name: str) -> Any:
    raise _TrapError(f"{name} is not a JSON number")


async def idempotency(request: web.Request) -> tuple[bytes, bytes] | None:
    """Digests of the Idempotency-Key, bound to method and path, and of the whole request; None without one."""
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return None
    key = header[1:-1] if len(header) > 1 and header[0] == header[-1] == '"' else header
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise invalid("Idempotency-Key", "1 to 255 visible ASCII characters are needed", "Send a UUID.", 255)
    scope = f"{request.method} {request.path}\n".encode()
    named = hashlib.blake2b(scope + key.encode(), digest_size=16).digest()
    whole = hashlib.blake2b(scope + await read_bytes(request), digest_size=16).digest()
    return named, whole


def wants_msgpack(request: web.Request) -> bool:
    """Whether the answer should be msgpack: asked for by Accept, or, without one, by the request's own type."""
    accept = request.headers.get("Accept", "*/*")
    return MSGPACK in accept or (request.content_type == MSGPACK and "*/*" in accept)


def answer(request: web.Request, document: Any, status: int = 200) -> web.Response:
    """`document` in the form the client wants."""
    if wants_msgpack(request):
        return web.Response(status=status, body=msgspec.msgpack.encode(document), content_type=MSGPACK)
    return web.Response(status=status, body=msgspec.json.encode(document), content_type=JSON)
