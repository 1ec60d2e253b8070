"""Who is let in by the native API, and to what; and by both, what a key's roles and patterns allow."""

from __future__ import annotations

import asyncio
import re
import typing
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from api import access, rights, sealing
from api.rights import NAMED, ROLES, ROUTES, AccessKey, Grant, Need, Right
from cluster.trouble import ClusterTrouble
from storage import operations
from storage.access_operations import ListAccessKeys, RevokeAccessKey
from storage.operations import Ack, Keyed, Operation, Send, Transaction
from storage.options import Plan
from storage.queue_operations import ListQueues, PutQueue
from storage.schedule_operations import PutSchedule
from storage.settings import QueueSettings
from tests.api.asking import Answer, ask
from tests.api.fake_client import FakeClient, Gateway, gateway
from tests.api.keys import SEAL, basic, keyed_gateway, make_key

ADMIN, PRODUCER, STRANGER = "TRIADMINADMINADMIN01", "TRIPRODUCERPRODUCE01", "TRISTRANGERSTRANGE01"
SECRET = "secret"
FROM_A_PROXY = {"X_Forwarded_For": "203.0.113.9"}


@pytest.fixture
async def node() -> AsyncIterator[Gateway]:
    """A gateway with a queue called jobs and an admin's key."""
    async with keyed_gateway() as opened:
        await ask(opened, "PUT", "/v1/queues/jobs", {})
        make_key(opened, ADMIN, SECRET, "admin")
        yield opened


async def asked(node: Gateway, key_id: str, method: str, path: str, content: Any = None, **headers: str) -> Answer:
    return await ask(node, method, path, content, Authorization=basic(key_id, SECRET), **headers)


# --- without keys -----------------------------------------------------------------------------------------------------


async def test_without_keys_only_this_machine_is_let_in() -> None:
    async with gateway() as node:
        assert (await ask(node, "GET", "/v1/queues")).status == 200
        refused = await ask(node, "GET", "/v1/queues", **FROM_A_PROXY)
        assert (refused.status, refused["type"]) == (401, "urn:trimaran:unauthorized")
        assert "trimaran keys create --role admin" in refused["remedy"]
        assert (await ask(node, "GET", "/v1/queues", Origin="https://a.example")).status == 401
        assert (await ask(node, "GET", "/readyz", **FROM_A_PROXY)).status == 200


async def test_a_node_may_be_told_to_let_in_everybody_while_there_are_no_keys() -> None:
    async with keyed_gateway(insecure_listen=True) as node:
        assert (await ask(node, "GET", "/v1/queues", **FROM_A_PROXY)).status == 200
        make_key(node, ADMIN, SECRET, "admin")
        assert (await ask(node, "GET", "/v1/queues", **FROM_A_PROXY)).status == 401


# --- with keys --------------------------------------------------------------------------------------------------------


async def test_with_a_key_everybody_must_come_with_one(node: Gateway) -> None:
    refused = await ask(node, "GET", "/v1/queues")
    assert (refused.status, refused["detail"]) == (401, "The request comes without a key.")
    assert "HTTP Basic" in refused["remedy"]
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="trimaran"'
    assert (await asked(node, ADMIN, "GET", "/v1/queues")).status == 200
    for path in ("/", "/healthz", "/readyz", "/openapi.json"):
        assert (await ask(node, "GET", path)).status == 200
    assert (await ask(node, "GET", "/nowhere")).status == 404
    assert (await ask(node, "PATCH", "/v1/queues/jobs")).status == 405


@pytest.mark.parametrize(
    "authorization",
    [
        basic(STRANGER, SECRET),
        basic(ADMIN, "another"),
        basic(ADMIN, ""),
        basic(ADMIN, SECRET + "x"),
        basic("é", SECRET),
        "Basic",
        "Basic ====",
        "Basic " + "eA==",
        "Bearer " + SECRET,
        "AWS4-HMAC-SHA256 nothing",
        "AWS4-HMAC-SHA256 Credential=a/20260101/b/c/aws4_request, SignedHeaders=host, Signature=a",
    ],
)
async def test_credentials_that_are_none_are_refused(node: Gateway, authorization: str) -> None:
    refused = await ask(node, "GET", "/v1/queues", Authorization=authorization)
    assert (refused.status, refused["title"]) == (401, "It is not known who asks")


async def test_secrets_are_compared_in_constant_time(node: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return True

    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    assert (await ask(node, "GET", "/v1/queues", Authorization=basic(ADMIN, "x"))).status == 200
    assert (await ask(node, "GET", "/v1/queues", Authorization=basic(STRANGER, "x"))).status == 401
    assert compared == [(b"x", SECRET.encode()), (b"x", b"")]


@pytest.mark.parametrize("spoil", [{}, {"data": b'{"body":"b"}'}, {"secret": "forged"}, {"service": "sqs"}])
async def test_a_request_may_be_signed_instead(node: Gateway, spoil: dict[str, Any]) -> None:
    body = b'{"body":"a"}'
    url = f"http://127.0.0.1:{node.port}/v1/queues/jobs/messages"
    request = AWSRequest("POST", url, headers={"Content-Type": "application/json"}, data=body)
    credentials = Credentials(ADMIN, spoil.get("secret", SECRET))
    SigV4Auth(credentials, spoil.get("service", access.SERVICE), "anywhere").add_auth(request)
    headers = dict(request.headers.items())
    async with node.http.post("/v1/queues/jobs/messages", data=spoil.get("data", body), headers=headers) as answer:
        assert answer.status == (401 if spoil else 201)


# --- rights -----------------------------------------------------------------------------------------------------------


async def test_a_route_that_was_forgotten_is_an_admins(node: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    make_key(node, PRODUCER, SECRET, "manager")
    monkeypatch.delitem(ROUTES, ("GET", "/v1/queues"))
    assert (await asked(node, PRODUCER, "GET", "/v1/queues")).status == 403
    assert (await asked(node, ADMIN, "GET", "/v1/queues")).status == 200


class Names(dict[str, str]):
    """What stands in paths; 1 for whatever is not known here."""

    def __missing__(self, name: str) -> str:
        return "1"


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_opens_the_routes_of_its_rights_on_its_queues(node: Gateway, role: str) -> None:
    mine = "TRIMINEMINEMINEMIN01"
    await asked(node, ADMIN, "PUT", "/v1/queues/default", {})
    make_key(node, mine, SECRET, role, *(["*"] if role == "admin" else ["default", "j*s"]))
    for (method, path), right in ROUTES.items():
        for queue in ("jobs", "other"):
            may = right is Right.OPEN or right in ROLES[role]
            may = may and (role == "admin" or queue == "jobs" or not any(f"{{{name}}}" in path for name in NAMED))
            where = path.format_map(Names(dict.fromkeys(NAMED, queue), member="n9", key=mine))
            if (method, where) in (("DELETE", f"/v1/keys/{mine}"), ("DELETE", "/v1/queues/jobs")) and may:
                continue  # needed below
            status = (await asked(node, mine, method, where, None if method == "GET" else {})).status
            assert (status == 403) != may, (method, where, status)


async def test_what_is_refused_is_told(node: Gateway) -> None:
    make_key(node, PRODUCER, SECRET, "producer", "orders-*")
    refused = await asked(node, PRODUCER, "POST", "/v1/queues/jobs/messages", {"body": "a"})
    assert (refused.status, refused["type"]) == (403, "urn:trimaran:forbidden")
    assert refused["detail"] == f"{PRODUCER}, producer of orders-*, has not the right to send on jobs."
    assert "trimaran keys create" in refused["remedy"]
    assert Send not in map(type, node.client.asked)


async def test_a_queue_named_in_a_body_counts_too(node: Gateway) -> None:
    """A manager must not have the cluster send dead letters to where he may not send."""
    make_key(node, PRODUCER, SECRET, "manager", "jobs", "jobs-dead")
    assert (await asked(node, PRODUCER, "PUT", "/v1/queues/jobs", {"dead_letter_queue": "others"})).status == 403
    assert (await asked(node, PRODUCER, "PUT", "/v1/queues/jobs", {"dead_letter_queue": "jobs-dead"})).status == 200


async def test_of_a_list_everyone_sees_their_own(node: Gateway) -> None:
    for number in range(10):
        for name in (f"a-{number}", f"b-{number}"):
            await asked(node, ADMIN, "PUT", f"/v1/queues/{name}", {})
    make_key(node, PRODUCER, SECRET, "producer", "b-*")
    first = await asked(node, PRODUCER, "GET", "/v1/queues?limit=6")
    assert [queue["queue"] for queue in first["queues"]] == [f"b-{number}" for number in range(6)]
    rest = await asked(node, PRODUCER, "GET", "/v1/queues?limit=6&after=b-5&consistency=local")
    assert [queue["queue"] for queue in rest["queues"]] == ["b-6", "b-7", "b-8", "b-9"]


def grant(role: str, *queues: str) -> Grant:
    return Grant(AccessKey("ID", SECRET, (role,), queues))


def test_a_key_is_shown_without_its_secret() -> None:
    shown = repr(grant("producer", "jobs"))
    assert "ID" in shown
    assert SECRET not in shown


def test_every_operation_needs_a_right() -> None:
    """Each kind, made of nothing but its names."""
    kinds = typing.get_args(Operation)
    assert len(kinds) > 20
    for kind in kinds:
        made = operations._operation_decoder.decode(msgspec.msgpack.encode([kind.__struct_config__.tag, *_blank(kind)]))
        assert list(rights.needs(made)), kind
        assert Grant(AccessKey("ID", SECRET, (), ("*",))).missing(made), kind
        assert grant("admin", "*").missing(made) is None
        assert Grant(None).missing(made) is None


def _blank(kind: type[Any]) -> list[Any]:
    """The least that such an operation must say."""
    by_name: dict[str, Any] = {
        "settings": {},
        "operation": [4, "q", 1],
        "steps": [[4, "q", 1]],
        "plan": ["q", b""],
        "kind": "producer",
    }
    by_type = {str: "q", int: 1, bytes: b"", bool: True}
    required = [field for field in msgspec.structs.fields(kind) if field.required]
    return [by_name.get(field.name, by_type.get(field.type, [])) for field in required]


def test_an_operation_needs_the_right_on_each_queue_that_it_names() -> None:
    both = Keyed(bytes(16), bytes(16), Transaction([Send("a", 1), Ack("b", [])]))
    assert list(rights.needs(both)) == [Need(Right.SEND, "a"), Need(Right.RECEIVE, "b")]
    assert grant("manager", "a").missing(both) == Need(Right.RECEIVE, "b")
    assert grant("manager", "a", "b").missing(both) is None
    assert grant("producer", "*").missing(both) == Need(Right.RECEIVE, "b")
    for put in (PutQueue("a", QueueSettings(dead_letter_queue="b")), PutSchedule("a", Plan("b", b""))):
        assert list(rights.needs(put)) == [Need(Right.MANAGE, "a"), Need(Right.SEND, "b")]


SUBMITTING = re.compile(r"(\.submit|\.look)\(")


def test_operations_reach_the_cluster_only_where_rights_are_asked_for() -> None:
    """Handlers go through `rest.submit`, `rest.query` and `endpoint._submit`; the key ring asks for itself."""
    api = Path(access.__file__).parent
    found = {str(path.relative_to(api)) for path in api.rglob("*.py") if re.search(r"CLIENT\]", path.read_text())}
    doors = {"rest.py", "access.py", "aws/endpoint.py"}
    submitting = {name for name in found if SUBMITTING.search((api / name).read_text())}
    assert submitting <= doors


# --- how fresh the keys are -------------------------------------------------------------------------------------------


def fetches(node: Gateway) -> int:
    return sum(type(each) is ListAccessKeys for each in node.client.asked)


async def test_keys_are_fetched_when_they_have_changed_and_no_more(node: Gateway) -> None:
    for _ in range(3):
        assert (await asked(node, ADMIN, "GET", "/v1/queues")).status == 200
    assert fetches(node) == 1
    make_key(node, PRODUCER, SECRET, "producer")
    for _ in range(3):
        assert (await asked(node, PRODUCER, "GET", "/v1/queues")).status == 200
    assert fetches(node) == 2


async def test_a_revoked_key_is_refused_with_the_next_request(node: Gateway) -> None:
    make_key(node, PRODUCER, SECRET, "producer")
    assert (await asked(node, PRODUCER, "GET", "/v1/queues")).status == 200
    await FakeClient.submit(node.client, RevokeAccessKey(PRODUCER), timeout_ms=1000)
    assert (await asked(node, PRODUCER, "GET", "/v1/queues")).status == 401


async def test_when_the_last_key_is_revoked_it_is_as_before_the_first(node: Gateway) -> None:
    assert (await asked(node, ADMIN, "DELETE", f"/v1/keys/{ADMIN}")).status == 204
    assert (await ask(node, "GET", "/v1/queues")).status == 200
    assert (await ask(node, "GET", "/v1/queues", **FROM_A_PROXY)).status == 401


async def test_a_key_made_a_moment_ago_is_found_before_the_leader_has_told_of_it(
    node: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await asked(node, ADMIN, "GET", "/v1/queues")).status == 200
    index = node.client.access_index()
    monkeypatch.setattr(node.client, "access_index", lambda: index)
    assert (await asked(node, STRANGER, "GET", "/v1/queues")).status == 401
    make_key(node, PRODUCER, SECRET, "producer")
    assert (await asked(node, PRODUCER, "GET", "/v1/queues")).status == 200, "also just after a stranger was looked for"


async def test_strangers_do_not_make_a_gateway_ask_again_and_again(node: Gateway) -> None:
    await asked(node, ADMIN, "GET", "/v1/queues")
    answers = await asyncio.gather(*(asked(node, STRANGER, "GET", "/v1/queues") for _ in range(20)))
    assert {answer.status for answer in answers} == {401}
    assert fetches(node) <= 3


async def test_without_a_leader_nothing_is_done_by_keys_that_may_have_been_revoked(node: Gateway) -> None:
    """A copy of the keys must not outlive the majority that could have revoked them; what is held here may be told."""
    make_key(node, PRODUCER, SECRET, "producer", "jobs")
    assert (await asked(node, ADMIN, "GET", "/v1/queues")).status == 200
    node.client.has_leader = False
    node.client.fails_with = ClusterTrouble("not_done", "this node does not reach a majority of the cluster")
    for method, path, content in (
        ("GET", "/v1/queues", None),
        ("POST", "/v1/queues/jobs/messages", {"body": "a"}),
        ("POST", "/v1/queues/jobs/messages?consistency=local", {"body": "a"}),
        ("POST", "/v1/cluster/scrub?consistency=local", None),
    ):
        assert (await asked(node, ADMIN, method, path, content)).status == 503
    assert (await asked(node, PRODUCER, "GET", "/v1/queues/jobs?consistency=local")).status == 200
    assert (await asked(node, PRODUCER, "GET", "/v1/queues/other?consistency=local")).status == 403
    assert (await asked(node, PRODUCER, "GET", "/v1/cluster")).status == 200
    assert (await asked(node, STRANGER, "GET", "/v1/cluster")).status == 401
    assert (await ask(node, "GET", "/v1/cluster")).status == 401


async def test_a_blank_replica_that_knows_no_keys_lets_nobody_change_anything(node: Gateway) -> None:
    """What it has is nothing, and that may be told; what it asks of the cluster, the cluster's keys decide."""
    node.client.has_leader = False
    blank = FakeClient()
    node.client.look = blank.look  # type: ignore[method-assign]
    assert (await ask(node, "GET", "/v1/queues?consistency=local"))["queues"] == []
    assert (await ask(node, "GET", "/receive_message?consistency=local")).status == 503
    assert {type(each) for each in node.client.asked} == {PutQueue}, "only before there was a key"
    assert (await ask(node, "GET", "/v1/queues")).status == 401
    assert (await ask(node, "GET", "/v1/queues?consistency=local")).status == 401, "now it is known here too"


# --- the resource -----------------------------------------------------------------------------------------------------


async def test_a_key_is_made_shown_without_its_secret_and_revoked() -> None:
    async with keyed_gateway() as node:
        made = await ask(node, "POST", "/v1/keys", {"roles": ["admin"], "note": "ops"})
        assert made.status == 201
        key_id, secret = made["id"], made.document.pop("secret")
        assert re.fullmatch("TRI[A-Z2-7]{17}", key_id)
        assert re.fullmatch("[A-Za-z0-9]{40}", secret)
        own = {"Authorization": basic(key_id, secret)}
        assert (await ask(node, "GET", "/v1/keys", **own))["keys"] == [made.document]
        assert (await ask(node, "GET", f"/v1/keys/{key_id}", **own)).document == made.document
        assert made.document == {
            "id": key_id,
            "roles": ["admin"],
            "queues": ["*"],
            "note": "ops",
            "created": "2023-11-14T22:13:20.000Z",
        }
        store = node.client.store
        kept = b"".join(key + value for key, value in store.scan(b"")) + b"".join(
            bytes(store.entry(index)) for index in range(store.first_index, store.last_index + 1)
        )
        assert key_id.encode() in kept
        assert secret.encode() not in kept
        assert sealing.read(SEAL) not in kept
        other = await ask(node, "POST", "/v1/keys", {"roles": ["producer", "consumer"], "queues": ["a*"]}, **own)
        assert (await ask(node, "DELETE", f"/v1/keys/{key_id}", **own))["type"] == "urn:trimaran:last-admin"
        assert (await ask(node, "DELETE", f"/v1/keys/{other['id']}", **own)).status == 204
        assert (await ask(node, "DELETE", f"/v1/keys/{other['id']}", **own)).status == 404
        assert (await ask(node, "GET", f"/v1/keys/{other['id']}", **own)).status == 404


async def test_a_repeated_request_tells_the_same_secret_again() -> None:
    """The first answer may have been lost, and the node that is asked again has thrown other dice."""
    async with keyed_gateway() as node:
        wish = {"roles": ["admin"]}
        one = await ask(node, "POST", "/v1/keys", wish, Idempotency_Key="k")
        again = {"Idempotency_Key": "k", "Authorization": basic(one["id"], one["secret"])}
        assert (await ask(node, "POST", "/v1/keys", wish, **again)).document == one.document
        clash = await ask(node, "POST", "/v1/keys", {"roles": ["manager"]}, **again)
        assert clash.status == 422


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({}, "$"),
        ({"roles": []}, "$.roles"),
        ({"roles": ["root"]}, "$.roles[0]"),
        ({"roles": ["manager"], "queues": []}, "$.queues"),
        ({"roles": ["manager"], "queues": ["ok", "a b"]}, "$.queues[1]"),
        ({"roles": ["manager"], "queues": ["*" * 9]}, "$.queues[0]"),
        ({"roles": ["manager"], "queues": ["a"] * 17}, "$.queues"),
        ({"roles": ["admin"], "queues": ["a"]}, "$.queues"),
        ({"roles": ["admin"], "note": "x" * 129}, "$.note"),
    ],
)
async def test_what_is_no_key_is_refused(wish: dict[str, Any], field: str) -> None:
    async with keyed_gateway() as node:
        refused = await ask(node, "POST", "/v1/keys", wish)
        assert (refused.status, refused["field"]) == (400, field)
        assert not node.client.asked


async def test_the_first_key_is_an_admins() -> None:
    async with keyed_gateway() as node:
        refused = await ask(node, "POST", "/v1/keys", {"roles": ["manager"]})
        assert (refused.status, refused["type"]) == (409, "urn:trimaran:first-admin")


async def test_no_id_of_a_key_is_refused(node: Gateway) -> None:
    assert (await asked(node, ADMIN, "GET", "/v1/keys/nope"))["field"] == "key"


# --- the seal key -----------------------------------------------------------------------------------------------------


async def test_a_node_without_a_seal_key_makes_no_keys(tmp_path: Path) -> None:
    async with keyed_gateway(seal_key=tmp_path / "seal.key") as node:
        refused = await ask(node, "POST", "/v1/keys", {"roles": ["admin"]})
        assert (refused.status, refused["type"]) == (409, "urn:trimaran:no-seal-key")
        assert "trimaran keys seal-key" in refused["detail"]
        assert sealing.make(tmp_path / "seal.key")
        assert (await ask(node, "POST", "/v1/keys", {"roles": ["admin"]})).status == 201, "it need not be restarted"


async def test_a_node_with_another_seal_key_says_so_and_lets_nobody_in(tmp_path: Path) -> None:
    sealing.make(tmp_path / "seal.key")
    async with keyed_gateway(seal_key=tmp_path / "seal.key") as node:
        make_key(node, ADMIN, SECRET, "admin")
        refused = await asked(node, ADMIN, "GET", "/v1/queues")
        assert (refused.status, refused["outcome"]) == (503, "not_done")
        assert "another seal key" in refused["detail"]


def test_a_seal_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "seal.key"
    assert sealing.make(path)
    made = path.read_bytes()
    assert not sealing.make(path)
    assert path.read_bytes() == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["seal.key"]


@pytest.mark.parametrize("content", ["", "short", "é" * 44, "A" * 40])
def test_what_is_no_seal_key_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "seal.key").write_text(content)
    with pytest.raises(sealing.SealError, match="is no seal key"):
        sealing.read(tmp_path / "seal.key")
    with pytest.raises(sealing.SealError, match="cannot be read"):
        sealing.read(tmp_path)


def test_a_sealed_secret_opens_for_its_key_alone() -> None:
    one, other = sealing.Sealer(bytes(32)), sealing.Sealer(bytes(31) + b"x")
    sealed = one.seal(ADMIN, SECRET)
    assert one.open(ADMIN, sealed) == SECRET
    assert one.seal(ADMIN, SECRET) != sealed, "equal secrets look different"
    for sealer, key_id, content in (
        (other, ADMIN, sealed),
        (one, PRODUCER, sealed),
        (one, ADMIN, sealed[:-1]),
        (one, ADMIN, sealed[:8]),
        (one, ADMIN, b""),
        (one, ADMIN, sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ):
        with pytest.raises(sealing.SealError):
            sealer.open(key_id, content)


async def test_list_queues_is_bound_to_the_patterns_of_its_key() -> None:
    assert grant("producer", "a*").bound(ListQueues()) == ListQueues(patterns=["a*"])
    assert Grant(None).bound(ListQueues()) == ListQueues()


async def test_metrics_name_the_queues_that_a_key_is_for_also_when_another_key_has_just_asked(node: Gateway) -> None:
    make_key(node, PRODUCER, SECRET, "producer", "jobs")
    for name in ("jobs", "other"):
        assert (await asked(node, ADMIN, "PUT", f"/v1/queues/{name}", {})).status in (200, 201)
    for key, queues in ((ADMIN, {"jobs", "other"}), (PRODUCER, {"jobs"}), (ADMIN, {"jobs", "other"})):
        async with node.http.get("/metrics", headers={"Authorization": basic(key, SECRET)}) as answer:
            found = set(re.findall(r'^trimaran_queue_bytes\{queue="(\w+)"', await answer.text(), re.MULTILINE))
        assert found == queues
    async with node.http.get("/metrics") as answer:
        assert answer.status == 401
