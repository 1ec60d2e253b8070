"""The web application: takes notifications and queues them.

    python -m examples.notifications.app --port 8080
    curl -X POST localhost:8080/notify -d '{"user": "zoë", "text": "Your order is on its way"}'

POST /notify takes one, POST /notify/many a list of up to 1000. Give an "id" to be able to repeat a request safely.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from examples.queue_client import Queue, QueueError, arguments

QUEUE = web.AppKey("queue", Queue)
MANY_MAX = 1000


async def notify(request: web.Request) -> web.Response:
    (message_id,), (notification,) = await _queue(request, [await _document(request)])
    return web.json_response({"id": notification["id"], "message_id": message_id}, status=202)


async def notify_many(request: web.Request) -> web.Response:
    documents = await _document(request)
    if not isinstance(documents, list) or not 1 <= len(documents) <= MANY_MAX:
        raise web.HTTPBadRequest(text=f"a list of 1 to {MANY_MAX} notifications is expected")
    _, notifications = await _queue(request, documents)
    return web.json_response({"ids": [notification["id"] for notification in notifications]}, status=202)


async def _queue(request: web.Request, documents: list[Any]) -> tuple[list[int], list[dict[str, str]]]:
    notifications = [_notification(document) for document in documents]
    try:
        return await request.app[QUEUE].send(notifications), notifications
    except QueueError as error:
        raise web.HTTPServiceUnavailable(text=str(error)) from error


def _notification(document: Any) -> dict[str, str]:
    match document:
        case {"user": str(user), "text": str(text), **rest} if user and text and rest.keys() <= {"id"}:
            return {"id": str(rest.get("id") or uuid.uuid4()), "user": user, "text": text}
    raise web.HTTPBadRequest(text='a notification is {"user": …, "text": …}, with an "id" if you like')


async def _document(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"this is no JSON: {error}") from error


def application(urls: str) -> web.Application:
    async def connect(app: web.Application) -> AsyncIterator[None]:
        async with Queue(urls, "notifications") as app[QUEUE]:
            yield

    app = web.Application(client_max_size=16 * 2**20)
    app.cleanup_ctx.append(connect)
    app.add_routes([web.post("/notify", notify), web.post("/notify/many", notify_many)])
    return app


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        web.run_app(application(options.url), host="127.0.0.1", port=options.port, access_log=None)


if __name__ == "__main__":
    main()
