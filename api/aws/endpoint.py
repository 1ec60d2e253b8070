"""Where AWS's clients come in: on the node's one port, at any path, told from others by what their requests look like.

    JSON   an `X-Amz-Target` header
    query  an `Action` in the query string of `/`, or of a path that no other API has; a form posted to such a path

The native API takes no forms and has no `X-Amz-Target`, so no request is both.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from aiohttp import web

from api.access import first
from api.aws import protocols, query, sigv4, sns, sqs
from api.aws.calls import Call, Once, Submit
from api.aws.errors import AwsError, common, sayable
from api.aws.keys import admitted, authenticate
from api.aws.names import is_host
from api.aws.protocols import SNS, SQS, SQS_JSON, SQS_QUERY, Dialect
from api.aws.shapes import Shape
from api.drain import DRAIN
from api.measures import PROBLEM, UNROUTED, measure
from api.problem import SERVER, Problem
from api.request import SETTINGS, read_bytes
from api.rest import CLIENT, under_key
from api.rights import Grant
from cluster.client import Reply
from cluster.trouble import ClusterTrouble
from storage import codes
from storage.operations import Keyed, Operation, Receive, Refused

FORM = "application/x-www-form-urlencoded"
ACTION = web.RequestKey("action", str)
"""A request's item that says what is asked for, by its service and action."""
_INVOCATION = "amz-sdk-invocation-id"
"""The header by which AWS's SDKs name a call, however often they repeat it."""
_TRACE = "X-Amzn-Trace-Id"
_log = structlog.get_logger()


def is_for_aws(request: web.Request) -> bool:
    """Whether the request is for SQS or SNS."""
    if "X-Amz-Target" in request.headers:
        return True
    is_native = request.match_info.http_exception is None and request.path != "/"
    if is_native or request.method not in ("GET", "POST"):
        return False
    return "Action" in request.query or (request.method == "POST" and request.content_type == FORM)


@web.middleware
async def face(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer what is for SQS or SNS, and pass on all else."""
    if not is_for_aws(request):
        response: web.StreamResponse = await handler(request)
        return response
    return await measure(request, _answer, lambda asked: asked.get(ACTION, UNROUTED))


async def _answer(request: web.Request) -> web.Response:
    request_id, refusal = _request_id(), None
    dialect = SQS_JSON if "X-Amz-Target" in request.headers else SQS_QUERY
    try:
        body = await read_bytes(request)
        sender = await authenticate(request, body, _SERVICES_IN_JSON if dialect.is_json else _SERVICES_IN_QUERY)
        content: bytes | dict[str, str] = body
        if dialect.is_json:
            action = protocols.targeted(request.headers["X-Amz-Target"])
        else:
            content = _parameters(request, body)
            dialect = protocols.dialect(content)
            if sender.claim is not None:
                sigv4.check_service(sender.claim, dialect.service.name)
            action = dialect.known(content.get("Action", ""))
        request[ACTION] = f"{dialect.service.name.upper()} {action}"
        wish = dialect.read(action, content)
        rendered = dialect.answer(action, await _act(request, sender.grant, body, dialect, action, wish), request_id)
    except AwsError as error:
        refusal = error
    except ClusterTrouble as trouble:
        refusal = common("ServiceUnavailableException", f"The cluster cannot answer now: {trouble.detail}.")
    except Problem as problem:
        refusal = _told(problem)
    except Exception as error:
        _log.error("a request failed unexpectedly", id=request_id, method=request.method, exc_info=error)
        said = f"The node made a mistake. Report it with the id {request_id}; the node's log tells more."
        refusal = common("InternalFailure", said)
    if refusal is not None:
        rendered = dialect.refuse(refusal, request_id)
    headers = rendered.headers | {"Server": SERVER}
    response = web.Response(status=rendered.status, body=rendered.body, headers=headers)
    if refusal is not None:
        response[PROBLEM] = refusal.shape
    return response


async def _act(
    request: web.Request, grant: Grant, body: bytes, dialect: Dialect, action: str, wish: Shape
) -> Shape | None:
    handlers = sns.HANDLERS if dialect.service is SNS else sqs.HANDLERS
    return await handlers[action](_call(request, body, _submit(request, grant, dialect.service.name, action)), wish)


def _request_id() -> str:
    digits = secrets.token_hex(16)
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


def _parameters(request: web.Request, body: bytes) -> dict[str, str]:
    """All parameters of a query request; one sent to a queue's own path is about that queue."""
    path, _, asked = request.raw_path.partition("?")
    given = query.parameters(asked.encode("utf-8", "surrogateescape"), body)
    if path != "/":
        given.setdefault("QueueUrl", path)
    return given


def _told(problem: Problem) -> AwsError:
    """What went wrong while a body was read."""
    shapes = {408: "RequestTimeoutException", 413: "RequestEntityTooLargeException"}
    return common(shapes.get(problem.status, "SerializationException"), str(problem))


# --- who asks ---------------------------------------------------------------------------------------------------------


_SERVICES_IN_JSON, _SERVICES_IN_QUERY = (SQS.name,), (SQS.name, SNS.name)
"""What may have been signed for. Which of the two it is, a form says; but it is not read for strangers."""


def base_url(request: web.Request) -> str:
    """How the client reaches this node, for the URLs of queues: some clients go where these point."""
    settings = request.app[SETTINGS]
    if settings.public_url:
        return settings.public_url.rstrip("/")
    scheme, host = request.scheme, request.headers.get("Host", "")
    if settings.trust_forwarded:
        scheme = first(request.headers.get("X-Forwarded-Proto", scheme))
        host = first(request.headers.get("X-Forwarded-Host", host))
    if not is_host(host) or scheme not in ("http", "https"):
        address = request.transport.get_extra_info("sockname") if request.transport is not None else None
        scheme, host = request.scheme, "{}:{}".format(*address[:2]) if address else "localhost"
    return f"{scheme}://{host}"


# --- what is asked ----------------------------------------------------------------------------------------------------


def _call(request: web.Request, body: bytes, submit: Submit) -> Call:
    """This request, as the actions see it."""
    trace, invocation = (_header(request, name) for name in (_TRACE, _INVOCATION))
    whole = b"" if invocation is None else _digest(request, body)
    return Call(submit, partial(base_url, request), trace, invocation, whole)


def _digest(request: web.Request, body: bytes) -> bytes:
    """Of all that a request asks for, part of which its query may say."""
    _, mark, asked = request.raw_path.partition("?")
    return hashlib.blake2b(body + (mark + asked).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _header(request: web.Request, name: str) -> str | None:
    """A header that is kept. Raises `AwsError` when it is not UTF-8."""
    value = request.headers.get(name)
    if value is not None and sayable(value) != value:
        raise common("SerializationException", f"The header {name} cannot be read: send it in ASCII, or leave it out.")
    return value


def _submit(request: web.Request, grant: Grant, service: str, action: str) -> Submit:
    """How this request's operations reach the cluster, as far as it may have them done."""
    app = request.app
    client, drain, timeout_ms = app[CLIENT], app[DRAIN], app[SETTINGS].request_timeout_ms

    async def submit(operation: Operation, block: bytes = b"", once: Once | None = None) -> Reply:
        operation = admitted(grant, operation, service, action)
        if once is not None:
            reply = await submit_once(operation, block, once)
            if not isinstance(reply.outcome, Refused) or reply.outcome.code not in _UNKEPT:
                return reply
        if isinstance(operation, Receive):
            return await receive(operation, lambda asked: asked)
        return await client.submit(operation, block, timeout_ms=timeout_ms)

    async def submit_once(operation: Operation, block: bytes, once: Once) -> Reply:
        key = hashlib.blake2b(once.name.encode(), digest_size=16, person=b"sqs").digest()
        operation = under_key(operation, key)

        def named(asked: Operation) -> Keyed:
            return Keyed(key, once.whole or bytes(16), asked)  # type: ignore[arg-type]

        if isinstance(operation, Receive):
            return await receive(operation, named)
        return await client.submit(named(operation), block, timeout_ms=timeout_ms)

    async def receive(operation: Receive, named: Callable[[Receive], Operation]) -> Reply:
        return await drain.poll(operation, lambda asked: client.submit(named(asked), timeout_ms=timeout_ms))

    return submit


_UNKEPT = (codes.IDEMPOTENCY_WINDOW_FULL, codes.IDEMPOTENCY_MISMATCH)
"""Why a repetition cannot be recognised: too many calls are remembered, or the client has named two of them alike."""


async def _for_nobody(request: web.Request) -> web.StreamResponse:
    raise web.HTTPMethodNotAllowed(request.method, ["GET"])


ROUTES = (web.post("/", _for_nobody),)
"""Where SDKs post to. A request for a path that is no route costs aiohttp half as much again: `face` answers all that
are for AWS, whatever their path, and leaves nothing here but what is for nobody."""
