"""What a gateway counts: requests, how long they took, what was refused and why, connections."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from aiohttp import web

from cluster.metrics import GatewayMetrics, Histogram, ProcessMeter

PROBLEM = web.ResponseKey("problem", str)
"""An answer's item that says what kind of refusal it is; kinds are few."""
UNROUTED = "other"
"""The route of requests that no route is for: what they ask for is theirs to choose, and must not become names."""
ABANDONED = 499
"""The status of requests whose client went away before there was an answer: nginx's number for it."""


class Meter:
    """One gateway's numbers. `name` tells it from the node's other gateways."""

    def __init__(self, name: str = "gateway-0") -> None:
        self.name = name
        self.process = ProcessMeter()
        self.connections = 0
        self._requests: dict[str, dict[int, int]] = {}
        self._durations: dict[str, Histogram] = {}
        self._refusals: dict[str, int] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is its method and its route."""
        statuses = self._requests.get(route)
        if statuses is None:
            statuses, self._durations[route] = self._requests.setdefault(route, {}), Histogram()
        statuses[status] = statuses.get(status, 0) + 1
        self._durations[route].observe(seconds)

    def refused(self, problem: str) -> None:
        """A request or a connection was refused, for a reason of this kind."""
        self._refusals[problem] = self._refusals.get(problem, 0) + 1

    def read(self, waiting: int) -> GatewayMetrics:
        """The numbers now. `waiting`: operations under way."""
        return GatewayMetrics(
            self.process.read(),
            {route: statuses.copy() for route, statuses in self._requests.items()},
            {route: histogram.copy() for route, histogram in self._durations.items()},
            self._refusals.copy(),
            self.connections,
            waiting,
        )


METER = web.AppKey("meter", Meter)
_R = TypeVar("_R", bound=web.StreamResponse)


async def measure(
    request: web.Request, handler: Callable[[web.Request], Awaitable[_R]], name: Callable[[web.Request], str]
) -> _R:
    """Count the request, however it ends. `name`: says in the end what was asked for; such names are few."""
    meter, begun_s, status = request.app[METER], time.monotonic(), ABANDONED
    try:
        response = await handler(request)
        status = response.status
        if status >= 400 and PROBLEM in response:
            meter.refused(response[PROBLEM])
        return response
    finally:
        meter.answered(name(request), status, time.monotonic() - begun_s)


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return UNROUTED if resource is None else f"{request.method} {resource.canonical}"


measured = web.middleware(partial(measure, name=_route))
"""Counts requests by their routes."""
