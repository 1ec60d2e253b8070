"""Every no this side can say: one exception, one table of codes, one answer (RFC 9457, `application/problem+json`).

A problem says what is wrong (`title`, `detail`), where (`field`), how far it may go (`limit`) and what to do (`remedy`).
`type` is a stable name to branch on; the words may change. Trouble of the cluster carries `outcome` as well: "not_done"
when the request surely had no effect, "unknown" when it may have had: repeat it under the same `Idempotency-Key`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal, NamedTuple

import msgspec
from aiohttp import web

from cluster.client import ClusterTrouble
from storage.operations import Refused

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:trimaran:problem:"
RETRY_AFTER_S = "1"
"""What a client should wait before it repeats: an election is over by then."""

_TEXT_MAX = 300
"""Characters of what a client sent that are said back to it."""


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """A request that is answered with a problem. `kind` is the last part of its type."""

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str,
        *,
        field: str | None = None,
        limit: int | None = None,
        remedy: str | None = None,
        outcome: Literal["not_done", "unknown"] | None = None,
        incident: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}
        self.members = ProblemBody(
            TYPE_PREFIX + kind,
            title,
            status,
            shortened(detail),
            *(msgspec.UNSET if value is None else value for value in (field, limit, remedy, outcome, incident)),
        )

    def response(self) -> web.Response:
        """The answer."""
        headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", **self.headers}
        return web.Response(status=self.status, body=msgspec.json.encode(self.members), headers=headers)


class ProblemBody(msgspec.Struct, frozen=True, rename={"kind": "type"}):
    """What went wrong, for programs (`type`, `field`, `limit`, `outcome`) and for people."""

    kind: str
    title: str
    status: int
    detail: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    limit: int | msgspec.UnsetType = msgspec.UNSET
    remedy: str | msgspec.UnsetType = msgspec.UNSET
    outcome: Literal["not_done", "unknown"] | msgspec.UnsetType = msgspec.UNSET
    incident: str | msgspec.UnsetType = msgspec.UNSET


class _Refusal(NamedTuple):
    status: int
    title: str
    detail: str
    remedy: str


REFUSALS: dict[str, _Refusal] = {
    "queue_not_found": _Refusal(
        404, "No such queue", "There is no queue called {queue}.", "Create it with PUT /v1/queues/{queue}."
    ),
    "queue_limit": _Refusal(
        409, "Too many queues", "There are {limit} queues already.", "Delete queues that are not needed any more."
    ),
    "body_too_large": _Refusal(
        413,
        "Body too large",
        "Message {position} has a body of more than the {limit} bytes this queue takes. Nothing was sent.",
        "Send a smaller body, or raise the queue's body_bytes_max.",
    ),
    "malformed": _Refusal(
        400, "Malformed operation", "The operation contradicts itself.", "Report this: a gateway should not send it."
    ),
    "store_full": _Refusal(
        507,
        "Store full",
        "The disk is nearly full: publishing stops while {limit} bytes are kept free for receiving and acking.",
        "Receive and ack, or purge, or add disk; then repeat the request.",
    ),
    "idempotency_mismatch": _Refusal(
        422,
        "Idempotency key used before",
        "This Idempotency-Key came with another request within the last ten minutes.",
        "Use a new key for a new request, and the same key only for the very same request.",
    ),
    "idempotency_window_full": _Refusal(
        503,
        "Too many idempotency keys",
        "{limit} keys are remembered, and no more can be for now. Nothing was done.",
        "Repeat later, or without an Idempotency-Key.",
    ),
    "stale_operation": _Refusal(
        503,
        "Too late",
        "This request was overtaken by what came after it; whether it took effect is not remembered any more.",
        "Repeat it under its Idempotency-Key.",
    ),
}
"""How each refusal of the rules, and of a leader without room, is answered."""

_OUTCOMES: dict[str, Literal["not_done", "unknown"]] = {
    "idempotency_window_full": "not_done",
    "stale_operation": "unknown",
}


def of_refusal(refused: Refused, queue: str) -> Problem:
    """The answer to a refusal of the rules."""
    found = REFUSALS[refused.code]
    values = {"queue": queue, "limit": refused.limit, "position": refused.position}
    return Problem(
        found.status,
        refused.code,
        found.title,
        found.detail.format_map(values),
        field=f"messages[{refused.position}].body" if refused.code == "body_too_large" else None,
        limit=refused.limit or None,
        remedy=found.remedy.format_map(values),
        outcome=_OUTCOMES.get(refused.code),
        headers={"Retry-After": RETRY_AFTER_S} if found.status == 503 else None,
    )


def of_trouble(trouble: ClusterTrouble) -> Problem:
    """The answer when the cluster could not answer in time."""
    known = trouble.outcome == "not_done"
    return Problem(
        503,
        "cluster_unavailable",
        "The cluster did not answer in time",
        trouble.detail,
        remedy="Repeat the request." if known else "Repeat the request under the same Idempotency-Key.",
        outcome=trouble.outcome,
        headers={"Retry-After": RETRY_AFTER_S},
    )


def of_http(error: web.HTTPException) -> Problem:
    """The answer to what the HTTP layer refuses by itself: unknown paths, methods, oversized bodies."""
    status = error.status
    phrase = HTTPStatus(status).phrase
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    remedy = {404: "See /openapi.json for what there is.", 405: "Use a method named in Allow."}.get(status)
    kind = phrase.lower().replace(" ", "_").replace("-", "_").replace("'", "")
    return Problem(status, kind, phrase, f"{phrase}: {error.reason}", remedy=remedy, headers=headers)


def too_large(limit: int) -> Problem:
    """The request carries more than one request may."""
    return Problem(
        413,
        "request_too_large",
        "Request too large",
        f"A request may carry {limit} bytes.",
        limit=limit,
        remedy="Send smaller or fewer messages a request.",
        headers={"Connection": "close"},
    )


def invalid(detail: str, *, field: str | None = None, limit: int | None = None, remedy: str | None = None) -> Problem:
    """The request is understood but asks for something that cannot be."""
    return Problem(400, "invalid_request", "Invalid request", detail, field=field, limit=limit, remedy=remedy)


def shortened(text: str) -> str:
    """`text`, cut where it becomes a burden."""
    return text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "…"
