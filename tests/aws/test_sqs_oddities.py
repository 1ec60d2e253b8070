"""No request of SQS, however odd, is a mistake of the node; every refusal of the rules has words."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.aws import calls
from api.aws.protocols import SQS
from cluster.room import STORE_FULL
from storage import codes
from storage.operations import Refused
from tests.aws import models
from tests.aws.asking import URL, Caller, refused


def test_every_refusal_of_the_rules_has_words() -> None:
    assert set(calls.REFUSALS) == codes.CODES | {STORE_FULL}


@pytest.mark.parametrize("code", sorted(codes.CODES | {STORE_FULL}))
async def test_refusals_of_the_rules_are_told(sqs: Caller, code: str) -> None:
    sqs.gateway.client.refuses_with = Refused(code, 7)
    status, told, words = await refused(sqs, "SendMessage", QueueUrl=URL, MessageBody="a")
    assert 400 <= status <= 503
    assert status != 500
    assert told
    assert words


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
async def test_no_request_however_odd_is_a_mistake_of_the_node(sqs: Caller, data: st.DataObject) -> None:
    model = models.service("sqs") if sqs.in_json else models.in_query("sqs")
    action = data.draw(st.sampled_from(model.operation_names))
    asked = data.draw(models.values(model.operation_model(action).input_shape))
    if "QueueUrl" in asked:
        asked["QueueUrl"] = data.draw(st.sampled_from([URL, asked["QueueUrl"]]))
    asked.pop("WaitTimeSeconds", None)
    status, _, _ = await sqs.raw(action, **asked)
    assert status in (200, 400, 403, 404)


names_of_parameters = st.lists(
    st.sampled_from(
        ["", "1", "2", "x", "Attribute", "QueueUrl", "Entries", "Id", "Name", "Value", "MessageBody", "WaitTimeSeconds"]
        + [
            "SendMessageBatchRequestEntry",
            "MessageAttribute",
            "DataType",
            "StringValue",
            "BinaryValue",
            "AttributeName",
        ]
    ),
    max_size=4,
).map(".".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    action=st.sampled_from(sorted(SQS.shapes)),
    given_for=st.dictionaries(names_of_parameters, st.sampled_from(["", "jobs", "0", "true", "x", "\x00"]), max_size=8),
)
async def test_parameters_of_any_name_are_no_mistake_of_the_node(
    sqs_json: Caller, action: str, given_for: dict[str, str]
) -> None:
    form = {"QueueUrl": "jobs"} | given_for | {"Action": action}
    async with sqs_json.gateway.http.post("/", data=form) as answer:
        assert answer.status in (200, 400)
        ElementTree.fromstring(await answer.read())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    action=st.sampled_from(sorted(SQS.shapes)),
    document=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["QueueUrl", "Entries", "Attributes", "MessageBody", "Id"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    ),
)
async def test_json_of_any_shape_is_no_mistake_of_the_node(sqs_json: Caller, action: str, document: Any) -> None:
    headers = {"X-Amz-Target": f"AmazonSQS.{action}"}
    async with sqs_json.gateway.http.post("/", data=msgspec.json.encode(document), headers=headers) as answer:
        assert answer.status in (200, 400)
