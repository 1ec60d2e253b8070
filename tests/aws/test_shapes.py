"""Requests and answers against AWS's own service models: every action, every member, in each protocol."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, get_args, get_origin
from urllib.parse import urlencode

import msgspec
import pytest
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.aws import errors, query, shapes, sqs_shapes
from api.aws.errors import AwsError
from api.aws.protocols import NO_SUCH_QUEUE, SNS_QUERY, SQS_JSON, SQS_QUERY, Dialect, targeted
from api.aws.protocols import dialect as dialect_of
from tests.aws import models

NOT_TAKEN = {
    "sns": {
        *("AddPermission", "RemovePermission", "GetDataProtectionPolicy", "PutDataProtectionPolicy"),
        *("CheckIfPhoneNumberIsOptedOut", "OptInPhoneNumber", "ListPhoneNumbersOptedOut", "ListOriginationNumbers"),
        *("GetSMSAttributes", "SetSMSAttributes", "GetSMSSandboxAccountStatus", "CreateSMSSandboxPhoneNumber"),
        *("DeleteSMSSandboxPhoneNumber", "VerifySMSSandboxPhoneNumber", "ListSMSSandboxPhoneNumbers"),
        *("CreatePlatformApplication", "DeletePlatformApplication", "ListPlatformApplications"),
        *("GetPlatformApplicationAttributes", "SetPlatformApplicationAttributes", "CreatePlatformEndpoint"),
        *("DeleteEndpoint", "GetEndpointAttributes", "SetEndpointAttributes", "ListEndpointsByPlatformApplication"),
    },
    "sqs": set(),
}
"""Telephones, mobile push and policies of others' accounts."""

LEFT_OUT_WHEN_EMPTY = {"Successful", "Failed"}
"""Required members of answers that AWS leaves out all the same, and clients ask for with `in`."""

SPOKEN: list[tuple[str, Dialect, str]] = [
    (name, dialect, action)
    for name, dialect in (("sqs", SQS_JSON), ("sqs", SQS_QUERY), ("sns", SNS_QUERY))
    for action in dialect.service.shapes
]
spoken = pytest.mark.parametrize(
    ("name", "dialect", "action"),
    SPOKEN,
    ids=[f"{action}-{'json' if dialect.is_json else 'query'}-{name}" for name, dialect, action in SPOKEN],
)
few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def operation(name: str, dialect: Dialect, action: str) -> OperationModel:
    model = models.service(name) if dialect.is_json else models.in_query(name)
    return model.operation_model(action)


@pytest.mark.parametrize(("name", "dialect"), [("sqs", SQS_JSON), ("sns", SNS_QUERY)])
def test_every_action_is_known(name: str, dialect: Dialect) -> None:
    assert set(dialect.service.shapes) == set(models.service(name).operation_names) - NOT_TAKEN[name]


# --- structure --------------------------------------------------------------------------------------------------------


def agree(shape: Shape, kind: Any, told: str, *, answers: bool) -> None:
    """Assert that `kind` has the members of the model's shape, of the same types, required alike, and no others."""
    kind, _ = bare(kind)
    if isinstance(shape, ListShape):
        assert get_origin(kind) is list, told
        agree(shape.member, get_args(kind)[0], f"{told}[]", answers=answers)
    elif isinstance(shape, MapShape):
        assert get_origin(kind) is dict, told
        agree(shape.value, get_args(kind)[1], f"{told}[]", answers=answers)
    elif isinstance(shape, StructureShape):
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        assert set(fields) == set(shape.members), told
        for name, member in shape.members.items():
            agree(member, fields[name].type, f"{told}.{name}", answers=answers)
            must = name in shape.required_members
            if answers:
                assert fields[name].required or not must or name in LEFT_OUT_WHEN_EMPTY, f"{told}.{name}"
            else:
                assert fields[name].required == must, f"{told}.{name}"
    else:
        expected = {"string": str, "integer": int, "long": int, "boolean": bool, "blob": bytes}[shape.type_name]
        assert kind is expected, told


@pytest.mark.parametrize(
    ("name", "action"), [(name, action) for name, dialect, action in SPOKEN if dialect is not SQS_QUERY]
)
def test_shapes_have_the_members_of_the_model(name: str, action: str) -> None:
    found = models.service(name).operation_model(action)
    asked, answered = (SQS_JSON if name == "sqs" else SNS_QUERY).service.shapes[action]
    agree(found.input_shape, asked, action, answers=False)
    if answered is None:
        assert found.output_shape is None or not found.output_shape.members
    else:
        agree(found.output_shape, answered, action, answers=True)


# --- requests ---------------------------------------------------------------------------------------------------------


@spoken
@few
@given(data=st.data())
def test_what_botocore_sends_is_read_without_loss(
    name: str, dialect: Dialect, action: str, data: st.DataObject
) -> None:
    model = operation(name, dialect, action)
    asked = data.draw(models.values(model.input_shape))
    sent = models.serialize(model, asked)
    if dialect.is_json:
        assert sent["headers"]["X-Amz-Target"] == f"AmazonSQS.{action}"
        content: Any = sent["body"]
    else:
        content = query.parameters(urlencode(sent["body"]).encode())
        assert (content["Action"], content["Version"]) == (action, dialect.service.version)
    assert models.without_empty(members(dialect.read(action, content))) == models.without_empty(asked)


def members(shape: shapes.Shape) -> dict[str, Any]:
    """A request as callers of botocore write it."""
    told = msgspec.to_builtins(shape, builtin_types=(bytes,))
    assert isinstance(told, dict)
    return told


# --- answers ----------------------------------------------------------------------------------------------------------


def made(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of one of our types."""
    kind, options = bare(kind)
    if get_origin(kind) is list:
        found = st.lists(made(get_args(kind)[0]), max_size=3)
    elif get_origin(kind) is dict:
        found = st.dictionaries(models.TEXT.filter(bool), made(get_args(kind)[1]), max_size=3)
    elif issubclass(kind, shapes.Shape):
        found = st.builds(kind, **{field.name: made(field.type) for field in msgspec.structs.fields(kind)})
    else:
        found = {str: models.TEXT, int: st.integers(0, 2**53), bool: st.booleans(), bytes: st.binary(max_size=9)}[kind]
    return st.none() | found if options else found


def bare(kind: Any) -> tuple[Any, bool]:
    """A type without its annotations, and whether there may be None instead."""
    if hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    options = [each for each in get_args(kind) if each is not NoneType]
    return (options[0], True) if isinstance(kind, UnionType) else (kind, False)


@spoken
@few
@given(data=st.data())
def test_what_is_answered_is_what_callers_of_botocore_get(
    name: str, dialect: Dialect, action: str, data: st.DataObject
) -> None:
    model = operation(name, dialect, action)
    kind = dialect.service.shapes[action][1]
    answer = None if kind is None else data.draw(made(kind))
    rendered = dialect.answer(action, answer, "17")
    assert rendered.headers["x-amzn-RequestId"] == "17"

    parsed = models.parse(model, rendered.status, rendered.headers, rendered.body)
    told = parsed.pop("ResponseMetadata")
    assert (told["HTTPStatusCode"], told["RequestId"]) == (200, "17")
    assert models.without_empty(parsed) == models.without_empty({} if answer is None else members(answer))
    if answer is not None:
        left_out = LEFT_OUT_WHEN_EMPTY if dialect.is_json else LEFT_OUT_WHEN_EMPTY | {"queueUrls"}  # flat: no element
        assert models.complaints(model, parsed) <= {
            f'Missing required parameter in input: "{each}"' for each in left_out
        }


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSALS = [
    *((SQS_JSON, errors.sqs, shape) for shape in errors.SQS),
    *((SQS_QUERY, errors.sqs, shape) for shape in errors.SQS),
    *((SNS_QUERY, errors.sns, shape) for shape in errors.SNS),
    *((dialect, errors.common, shape) for shape in errors.COMMON for dialect in (SQS_JSON, SQS_QUERY, SNS_QUERY)),
]


@pytest.mark.parametrize(("dialect", "make", "shape"), REFUSALS)
def test_refusals_have_both_names_status_and_words(
    dialect: Dialect, make: Callable[[str, str], AwsError], shape: str
) -> None:
    refusal = make(shape, 'Much < "ado" & more\r\n.')
    rendered = dialect.refuse(refusal, "17")
    model = operation(dialect.service.name, dialect, next(iter(dialect.service.shapes)))
    parsed = models.parse(model, rendered.status, rendered.headers, rendered.body)
    assert rendered.status == refusal.status == parsed["ResponseMetadata"]["HTTPStatusCode"]
    assert parsed["Error"]["Code"] == refusal.code
    assert parsed["Error"]["Message"] == refusal.message
    assert parsed["Error"]["Type"] == ("Sender" if refusal.status < 500 else "Receiver")
    assert parsed["ResponseMetadata"]["RequestId"] == "17"
    if dialect.is_json:
        assert parsed["Error"]["QueryErrorCode"] == shape


@pytest.mark.parametrize(("name", "make", "table"), [("sqs", errors.sqs, errors.SQS), ("sns", errors.sns, errors.SNS)])
def test_refusals_are_of_the_model(name: str, make: Callable[[str, str], AwsError], table: dict[str, Any]) -> None:
    modelled = {shape.name: shape for shape in models.service(name).error_shapes}
    unmodelled = {"InvalidParameterValueException", "MissingRequiredParameterException", "ValidationError"}
    assert set(table) - set(modelled) <= unmodelled
    for shape in set(table) & set(modelled):
        said = modelled[shape].metadata.get("error")
        if said is not None:
            assert (make(shape, "").code, make(shape, "").status) == (said["code"], said["httpStatusCode"])


def test_a_missing_queue_is_told_in_the_words_of_each_protocol() -> None:
    refusal = errors.sqs("QueueDoesNotExist", NO_SUCH_QUEUE)
    assert b'does not exist."' in SQS_JSON.refuse(refusal, "17").body
    assert b"does not exist for this wsdl version.<" in SQS_QUERY.refuse(refusal, "17").body


# --- what cannot be read ----------------------------------------------------------------------------------------------


def refused(dialect: Dialect, action: str, content: bytes | dict[str, str]) -> tuple[str, str]:
    with pytest.raises(AwsError) as raised:
        dialect.read(dialect.known(action), content)
    return raised.value.code, raised.value.message


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"{", "MalformedInput", "not JSON"),
        (b"\xff", "MalformedInput", "not JSON"),
        (b"[" * 10_000, "MalformedInput", ""),
        (b"[]", "MalformedInput", "Expected `object`, got `array`"),
        (b'{"QueueUrl": 1, "MessageBody": "a"}', "MalformedInput", "Expected `str`, got `int` - at `$.QueueUrl`"),
        (b'{"QueueUrl": "q"}', "MissingParameter", "The request must contain the parameter MessageBody."),
        (b'{"QueueUrl": null, "MessageBody": "a"}', "MissingParameter", "must contain the parameter QueueUrl."),
        (b'{"QueueUrl": "q", "MessageBody": "a", "DelaySeconds": "1"}', "MalformedInput", "$.DelaySeconds"),
        (
            b'{"QueueUrl": "q", "MessageBody": "", "MessageAttributes": {"a": {"DataType": "B", "BinaryValue": "*"}}}',
            "MalformedInput",
            "base64",
        ),
    ],
)
def test_json_that_is_none_or_of_other_types_is_refused(content: bytes, code: str, said: str) -> None:
    found = refused(SQS_JSON, "SendMessage", content)
    assert found[0] == code
    assert said in found[1]


@pytest.mark.parametrize(
    ("parameters", "code", "said"),
    [
        ({"QueueUrl": "q"}, "MissingParameter", "The request must contain the parameter MessageBody."),
        ({"QueueUrl": "q", "MessageBody": "a", "DelaySeconds": "x"}, "MalformedInput", "Must be an integer."),
        ({"QueueUrl": "q", "MessageBody": "a", "DelaySeconds": "1e3"}, "MalformedInput", "Must be an integer."),
        ({"QueueUrl": "q", "MessageBody": "a", "DelaySeconds": ""}, "MalformedInput", "Must be an integer."),
        (
            {
                "QueueUrl": "q",
                "MessageBody": "a",
                "MessageAttribute.1.Name": "a",
                "MessageAttribute.1.Value.BinaryValue": "*",
            },
            "MalformedInput",
            "Must be base64.",
        ),
        (
            {"QueueUrl": "q", "MessageBody": "a", "MessageAttribute.1.Name": "a"},
            "MissingParameter",
            "The request must contain the parameter DataType.",
        ),
    ],
)
def test_parameters_of_other_types_are_refused(parameters: dict[str, str], code: str, said: str) -> None:
    found = refused(SQS_QUERY, "SendMessage", parameters)
    assert found[0] == code
    assert said in found[1]


def test_numbers_put_parameters_in_order_and_what_is_not_known_is_ignored() -> None:
    given = {
        "QueueUrl": "q",
        "AttributeName.10": "c",
        "AttributeName.2": "b",
        "AttributeName.1": "a",
        "AttributeName.x": "?",
        "AttributeName.1.Name.Of.Something.Else.That.Is.Very.Deep.Indeed": "?",
        "AttributeName.99999999999999999999999999": "d",
        "Unheard.Of": "?",
    }
    found = SQS_QUERY.read("GetQueueAttributes", given)
    assert found == sqs_shapes.GetQueueAttributes(queue_url="q", attribute_names=["a", "b", "c", "d"])


def test_the_last_of_two_equal_parameters_counts_and_too_many_are_refused() -> None:
    assert query.parameters(b"Action=a&x=1&x=%C3%BC+%2B", b"x=", b"y") == {"Action": "a", "x": "", "y": ""}
    for encoded in (b"a&" * (query.PARAMETERS_MAX + 1), b"a=\xff", b"a=%FF"):
        with pytest.raises(AwsError):
            query.parameters(encoded)


@pytest.mark.parametrize(
    ("dialect", "action", "code"),
    [
        (SQS_JSON, "Publish", "InvalidAction"),
        (SQS_QUERY, "sendmessage", "InvalidAction"),
        (SQS_QUERY, "", "MissingAction"),
        (SNS_QUERY, "SendMessage", "InvalidAction"),
    ],
)
def test_what_is_no_action_of_the_service_is_refused(dialect: Dialect, action: str, code: str) -> None:
    assert refused(dialect, action, {})[0] == code


def test_nothing_at_all_is_taken_for_an_empty_request() -> None:
    assert SQS_JSON.read("ListQueues", b"") == SQS_QUERY.read("ListQueues", {}) == sqs_shapes.ListQueues()


def test_a_target_names_an_action_of_sqs() -> None:
    assert targeted("AmazonSQS.SendMessage") == "SendMessage"
    for target in ("SendMessage.AmazonSQS", "AmazonSNS.Publish", "AmazonSQS.", "AmazonSQS.AmazonSQS.SendMessage", ""):
        with pytest.raises(AwsError):
            targeted(target)


def test_sns_has_its_own_words_for_what_is_missing() -> None:
    assert refused(SNS_QUERY, "CreateTopic", {}) == (
        "ValidationError",
        "1 validation error detected: Value null at 'name' failed to satisfy constraint: Member must not be null",
    )


def test_the_version_tells_the_services_apart() -> None:
    assert dialect_of({"Version": "2010-03-31"}) is SNS_QUERY
    assert dialect_of({"Version": "2012-11-05"}) is SQS_QUERY
    assert dialect_of({}) is SQS_QUERY
