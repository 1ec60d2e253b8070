"""The description is of what there is: all of it, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from api.examples import EXAMPLES
from api.http import application
from api.openapi import document, template
from api.problem import REFUSALS
from api.request import HttpSettings
from api.rights import ROUTES, TOLD_BY_THE_NODE
from tests.api.asking import ask, validator
from tests.api.fake_client import FakeClient, Gateway, gateway

DOCS = Path(__file__).parents[2] / "docs"
SEED_PATHS = {("post", "/send_message"), ("get", "/receive_message"), ("get", "/messages")}


def all_routes() -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in application(FakeClient(), HttpSettings()).router.routes()
        if route.resource is not None
    }


def test_every_route_has_a_right() -> None:
    assert all_routes() == set(ROUTES), "api/rights.py says who may use which route"
    assert {method for (method, _), right in ROUTES.items() if right in TOLD_BY_THE_NODE} == {"GET"}


def test_every_route_is_described_and_every_description_is_a_route() -> None:
    routes = {(method.lower(), path) for method, path in all_routes()}
    described = {(method, path) for path, methods in document()["paths"].items() for method in methods}
    assert described == routes
    assert described >= SEED_PATHS


READS_QUERY = re.compile(r'(?:integer|choice)\(request, "(\w+)"|request\.query\.get\("(\w+)"')


def test_every_parameter_of_a_query_that_is_read_is_described_and_no_other() -> None:
    read = 0
    for route in application(FakeClient(), HttpSettings()).router.routes():
        if route.resource is None or route.method == "HEAD":
            continue
        source = inspect.getsource(route.handler)
        found = {first or second for first, second in READS_QUERY.findall(source)}
        if "await query(" in source:
            found.add("consistency")
        parameters = document()["paths"][route.resource.canonical][route.method.lower()]["parameters"]
        assert found == {each["name"] for each in parameters if each["in"] == "query"}, route
        read += len(found)
    assert read > 40


def test_whoever_writes_may_give_an_idempotency_key() -> None:
    described = {(method, path): each for path, ways in document()["paths"].items() for method, each in ways.items()}
    keyed = {way for way, each in described.items() if any(p["name"] == "Idempotency-Key" for p in each["parameters"])}
    writes = {way for way in described if way[0] != "get"} | {("get", "/receive_message")}
    of_the_cluster = {way for way in writes if way[1].startswith("/v1/cluster/")}
    assert keyed == writes - of_the_cluster - {("post", "/")}


def test_the_schemas_are_schemas() -> None:
    for schema in document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


async def test_the_examples_are_one_story_that_happens_as_it_is_shown() -> None:
    async with gateway() as node:
        for example in EXAMPLES:
            headers = {"Idempotency_Key": example.key} if example.key else {}
            answer = await ask(node, example.method.upper(), example.path, example.body, **headers)
            assert answer.status == example.status, (example.asks, answer.document)
            assert example.answer in (None, answer.document), example.asks


def test_what_clients_do_has_an_example() -> None:
    described = {(method, path) for path, methods in document()["paths"].items() for method in methods}
    operators = re.compile("/v1/(cluster|keys)")
    wanted = {(method, path) for method, path in described if path.startswith("/v1/") and not operators.match(path)}
    shown = {(example.method, template(example.path)) for example in EXAMPLES}
    assert shown <= described
    assert shown >= wanted | SEED_PATHS


def test_the_protocol_page_tells_every_operation_of_queues_and_messages_and_its_refusals() -> None:
    page = " ".join((DOCS / "protocol.md").read_text().split())
    for path, methods in document()["paths"].items():
        if not path.startswith(("/v1/queues", "/v1/transactions", "/send", "/receive", "/messages", "/ack", "/readyz")):
            continue
        parts = path.split("/")
        tails = [path, *("…/" + "/".join(parts[cut:]) for cut in range(2, len(parts)))]
        for method in methods:
            told = [f"{method.upper()} {tail}" for tail in tails]
            assert any(re.search(re.escape(each) + r"(?![\w/{-])", page) for each in told), (method, path)
    for code in (
        "queue_not_found",
        "message_not_found",
        "message_leased",
        "stale_receipt",
        "queue_full",
        "setting_fixed",
    ):
        assert REFUSALS[code][0] >= 400
        assert f"`{code.replace('_', '-')}`" in page


def test_the_examples_are_in_the_description() -> None:
    sends = document()["paths"]["/v1/queues/{queue}/messages"]["post"]
    assert sends["requestBody"]["content"]["application/json"]["examples"]["1"]["value"]["body"] == "one sloop"
    assert sends["responses"]["201"]["content"]["application/json"]["examples"]["1"]["value"]["messages"]


@pytest.mark.parametrize(
    ("name", "fine", "wrong"),
    [
        ("Send", {"body": "x"}, {"messages": []}),
        ("Send", {"messages": [{"body_base64": "eA=="}]}, {"messages": [{"body": 1}]}),
        ("Settings", {"lease_ms": 30_000}, {"lease_ms": 999}),
        ("Receive", {"max": 10, "wait_ms": 20_000}, {"max": 1001}),
        ("Change", {"priority": 9}, {}),
        ("Change", {"delay_ms": 0}, {"delay_ms": 0, "at": "2030-01-01T00:00:00Z"}),
        ("Ack", {"receipts": ["x"]}, {"receipts": []}),
        ("Extend", {"receipts": ["x"], "lease_ms": 1000}, {"receipts": ["x"]}),
        ("SeedMessage", {"message": "Hello, world!"}, {"message": 1}),
    ],
)
def test_requests_are_described_as_they_are_taken(name: str, fine: object, wrong: object) -> None:
    schema = validator({"$ref": f"#/components/schemas/{name}"})
    assert schema.is_valid(fine)
    assert not schema.is_valid(wrong)


async def test_health_and_the_description_are_served(node: Gateway) -> None:
    assert (await ask(node, "GET", "/openapi.json"))["openapi"] == "3.1.0"
    assert (await ask(node, "GET", "/"))["description"] == "/openapi.json"
    assert (await ask(node, "GET", "/healthz")).status == 200
    assert (await ask(node, "GET", "/readyz")).status == 200
    node.client.trouble = "it is catching up"
    assert (await ask(node, "GET", "/healthz")).status == 200
    unfit = await ask(node, "GET", "/readyz?verbose=1")
    assert (unfit.status, unfit["troubles"]) == (503, ["shard 0: it is catching up"])
    assert unfit["warnings"] == []
