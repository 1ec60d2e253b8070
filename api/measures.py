"""What a gateway counts: requests, how long they took, what was refused and why, connections."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from cluster.metrics import GatewayMetrics, Histogram, ProcessMeter

PROBLEM = web.ResponseKey("problem", str)
"""An answer's item that says what kind of refusal it is; kinds are few."""
ACTION = web.RequestKey("action", str)
"""A request's item that says what is asked for where the path does not; actions are few."""
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


@web.middleware
async def measured(request: web.Request, handler: Any) -> web.StreamResponse:
    """Count the request, however it ends."""
    meter, begun_s, status = request.app[METER], time.monotonic(), ABANDONED
    try:
        response: web.StreamResponse = await handler(request)
        status = response.status
        problem = response.get(PROBLEM)
        if problem is not None:
            meter.refused(problem)
        return response
    finally:
        action = request.get(ACTION)
        resource = request.match_info.route.resource
        if action is None:
            action = UNROUTED if resource is None else f"{request.method} {resource.canonical}"
        meter.answered(action, status, time.monotonic() - begun_s)
