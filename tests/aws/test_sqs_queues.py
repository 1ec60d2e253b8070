"""Queues of SQS: their names and URLs, what they may be told, and what they show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.aws import names, sqs_queues
from api.aws.errors import AwsError
from api.aws.sqs_queues import check_attributes, check_name, check_tags
from storage import codes
from storage.operations import GetQueue, PutQueue, QueueInfo, Refused
from storage.settings import QueueSettings
from tests.api import asking
from tests.aws.asking import Caller, refused

ARN = "arn:aws:sqs:eu-west-1:123456789012:"


def refusal(act: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(AwsError) as refused:
        act()
    return refused.value.code, refused.value.message


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 80])
def test_names_of_queues(name: str) -> None:
    check_name(name, fifo=False)
    check_name(name[:75] + ".fifo", fifo=True)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ü", "x" * 81, "a\n", "a/b", "q.fifo", ".fifo"])
def test_what_is_no_name_of_a_queue(name: str) -> None:
    said = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
    assert refusal(lambda: check_name(name, fifo=False)) == ("InvalidParameterValue", said)


@pytest.mark.parametrize("name", ["", "q", "x" * 76 + ".fifo", "a b.fifo", "q.fifo.fifo", ".fifo"])
def test_what_is_no_name_of_a_fifo_queue(name: str) -> None:
    code, said = refusal(lambda: check_name(name, fifo=True))
    assert code == "InvalidParameterValue"
    assert said.startswith("The name of a FIFO queue can only include")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:7700/000000000000/jobs",
        "https://sqs.us-east-1.amazonaws.com/123456789012/jobs",
        "http://[::1]:7700/queue/eu-west-1/000000000000/jobs/",
        "http://any/prefix/jobs?x=y",
        "/000000000000/jobs",
        "jobs",
    ],
)
def test_the_last_element_of_a_url_is_the_queue(url: str) -> None:
    assert names.queue_of_url(url) == "jobs"
    assert names.queue_of_url(names.queue_url("http://a:1", "q.fifo")) == "q.fifo"


@pytest.mark.parametrize("url", ["", "/", "http://127.0.0.1:7700/", "http://a/0/a b", "http://a/0/" + "x" * 81])
def test_a_url_without_a_queue_is_of_none_that_exists(url: str) -> None:
    assert refusal(lambda: names.queue_of_url(url))[0] == "AWS.SimpleQueueService.NonExistentQueue"


def test_arns() -> None:
    assert names.queue_of_arn(names.queue_arn("jobs")) == "jobs"
    assert names.queue_of_arn("arn:aws-cn:sqs:cn-north-1:123456789012:q.fifo") == "q.fifo"
    for other in (
        "",
        "jobs",
        "arn:aws:sns:us-east-1:1:t",
        "arn:aws:sqs:us-east-1:1:",
        "arn:aws:sqs:a:1:b:c",
        ARN + "a b",
    ):
        assert names.queue_of_arn(other) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:7700", "[::1]:7700", "queue.example.com", "a_b:1"])
def test_hosts(host: str) -> None:
    assert names.is_host(host)


@pytest.mark.parametrize("host", ["", "a b", "a/b", 'a"><', "a:b", "a:1:2", "[::1", "x" * 254, "a@b", "ü"])
def test_what_is_no_host(host: str) -> None:
    assert not names.is_host(host)


# --- attributes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("VisibilityTimeout", 0, 43200),
        ("DelaySeconds", 0, 900),
        ("MaximumMessageSize", 1024, 1048576),
        ("MessageRetentionPeriod", 60, 1209600),
        ("ReceiveMessageWaitTimeSeconds", 0, 20),
        ("KmsDataKeyReusePeriodSeconds", 60, 86400),
    ],
)
def test_numbers_have_their_range(name: str, lowest: int, highest: int) -> None:
    for fine in (lowest, highest):
        assert check_attributes({name: str(fine)}, fifo=False) == {name: str(fine)}
    assert check_attributes({name: f"+0{highest}"}, fifo=True) == {name: str(highest)}
    for wrong in (str(lowest - 1), str(highest + 1), "", "x", "1.0", " 60", "60 ", "1e2", "٦٠", "9" * 30):
        said = f"Invalid value for the parameter {name}."
        assert refusal(lambda wrong=wrong: check_attributes({name: wrong}, fifo=False)) == (
            "InvalidAttributeValue",
            said,
        )


def test_every_number_is_covered_above() -> None:
    assert len(sqs_queues.INTEGERS) == 6


@pytest.mark.parametrize(
    ("given", "fifo", "code", "said"),
    [
        ({"Nope": "1"}, False, "InvalidAttributeName", "Unknown Attribute Nope."),
        ({"All": "1"}, False, "InvalidAttributeName", "Unknown Attribute All."),
        *(
            ({name: "1"}, True, "InvalidAttributeName", f"Unknown Attribute {name}.")
            for name in sorted(sqs_queues.READ_ONLY)
        ),
        ({"FifoQueue": "true"}, False, "InvalidAttributeName", "Unknown Attribute FifoQueue."),
        ({"FifoQueue": "false"}, False, "InvalidAttributeName", "Unknown Attribute FifoQueue."),
        (
            {"ContentBasedDeduplication": "true"},
            False,
            "InvalidAttributeName",
            "Unknown Attribute ContentBasedDeduplication.",
        ),
        (
            {"DeduplicationScope": "queue"},
            False,
            "InvalidAttributeName",
            "You can specify the DeduplicationScope only when FifoQueue is set to true.",
        ),
        (
            {"FifoThroughputLimit": "perQueue"},
            False,
            "InvalidAttributeName",
            "You can specify the FifoThroughputLimit only when FifoQueue is set to true.",
        ),
        (
            {"FifoQueue": "false"},
            True,
            "InvalidAttributeValue",
            "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
        ),
        ({"FifoQueue": "1"}, True, "InvalidAttributeValue", "Invalid value for the parameter FifoQueue."),
        (
            {"DeduplicationScope": "x"},
            True,
            "InvalidAttributeValue",
            "Invalid value for the parameter DeduplicationScope.",
        ),
        (
            {"FifoThroughputLimit": ""},
            True,
            "InvalidAttributeValue",
            "Invalid value for the parameter FifoThroughputLimit.",
        ),
        ({"SqsManagedSseEnabled": "yes"}, False, "InvalidAttributeValue", "for the parameter SqsManagedSseEnabled."),
        (
            {"FifoThroughputLimit": "perMessageGroupId", "DeduplicationScope": "queue"},
            True,
            "InvalidAttributeValue",
            "can be set to perMessageGroupId only when the DeduplicationScope attribute is set to messageGroup.",
        ),
        ({"Policy": "x"}, False, "InvalidAttributeValue", "Invalid value for the parameter Policy."),
        ({"Policy": "[]"}, False, "InvalidAttributeValue", "Invalid value for the parameter Policy."),
        ({"RedrivePolicy": "x"}, False, "InvalidParameterValue", "Redrive policy is not a valid JSON map."),
        ({"RedrivePolicy": "[]"}, False, "InvalidParameterValue", "Redrive policy is not a valid JSON map."),
        (
            {"RedrivePolicy": '{"maxReceiveCount": 1}'},
            False,
            "InvalidParameterValue",
            "Redrive policy does not contain mandatory attribute: deadLetterTargetArn.",
        ),
        (
            {"RedrivePolicy": f'{{"deadLetterTargetArn": "{ARN}q"}}'},
            False,
            "InvalidParameterValue",
            "Redrive policy does not contain mandatory attribute: maxReceiveCount.",
        ),
        *(
            (
                {"RedrivePolicy": f'{{"deadLetterTargetArn": "{ARN}q", "maxReceiveCount": {count}}}'},
                False,
                "InvalidParameterValue",
                "valid values are from 1 to 1000 both inclusive.",
            )
            for count in ("0", "1001", '"0"', '"x"', "-1")
        ),
        (
            {"RedrivePolicy": '{"deadLetterTargetArn": "q", "maxReceiveCount": 1}'},
            False,
            "InvalidParameterValue",
            "Invalid value for deadLetterTargetArn.",
        ),
        *(
            ({"RedriveAllowPolicy": text}, False, "InvalidParameterValue", "it's in an unsupported format.")
            for text in (
                "x",
                "{}",
                '{"redrivePermission": "some"}',
                '{"redrivePermission": "byQueue"}',
                '{"redrivePermission": "byQueue", "sourceQueueArns": ["q"]}',
                f'{{"redrivePermission": "allowAll", "sourceQueueArns": ["{ARN}q"]}}',
                f'{{"redrivePermission": "byQueue", "sourceQueueArns": {json.dumps([ARN + "q"] * 11)}}}',
            )
        ),
    ],
)
def test_attributes_that_are_refused(given: dict[str, str], fifo: bool, code: str, said: str) -> None:
    found = refusal(lambda: check_attributes(given, fifo=fifo))
    assert found[0] == code
    assert said in found[1]


@pytest.mark.parametrize(
    ("given", "checked"),
    [
        (
            {"FifoQueue": "TRUE", "ContentBasedDeduplication": "False"},
            {"FifoQueue": "true", "ContentBasedDeduplication": "false"},
        ),
        (
            {"FifoThroughputLimit": "perMessageGroupId", "DeduplicationScope": "messageGroup"},
            {"FifoThroughputLimit": "perMessageGroupId", "DeduplicationScope": "messageGroup"},
        ),
        (
            {"Policy": "", "RedrivePolicy": "", "RedriveAllowPolicy": ""},
            {"Policy": "", "RedrivePolicy": "", "RedriveAllowPolicy": ""},
        ),
        ({"Policy": '{"Version": "2012-10-17"}'}, {"Policy": '{"Version": "2012-10-17"}'}),
        ({"KmsMasterKeyId": "alias/aws/sqs"}, {"KmsMasterKeyId": "alias/aws/sqs"}),
        *(
            (
                {"RedrivePolicy": f'{{"maxReceiveCount": {count}, "deadLetterTargetArn": "{ARN}dead"}}'},
                {
                    "RedrivePolicy": '{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead",'
                    '"maxReceiveCount":5}'
                },
            )
            for count in ("5", '"5"')
        ),
        (
            {"RedriveAllowPolicy": '{ "redrivePermission": "denyAll" }'},
            {"RedriveAllowPolicy": '{"redrivePermission":"denyAll"}'},
        ),
    ],
)
def test_attributes_have_one_form(given: dict[str, str], checked: dict[str, str]) -> None:
    assert check_attributes(given, fifo=True) == checked


@given(
    st.dictionaries(st.sampled_from(sorted(sqs_queues.KNOWN)) | st.text(max_size=5), st.text(max_size=30), max_size=3),
    st.booleans(),
)
def test_any_attributes_are_refused_or_have_a_form_that_stays(given: dict[str, str], fifo: bool) -> None:
    try:
        checked = check_attributes(given, fifo=fifo)
    except AwsError:
        return
    assert check_attributes(checked, fifo=fifo) == checked


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({f"k{number}": "" for number in range(51)}, "Too many tags added for queue jobs."),
        ({"": "a"}, "Tag keys must be between 1 and 128 characters in length."),
        ({"a" * 129: "a"}, "Tag keys must be between 1 and 128 characters in length."),
        ({"a": "a" * 257}, "Tag values must be between 0 and 256 characters in length."),
        ({"AWS:a": "a"}, "Tag keys beginning with 'aws:' are reserved for internal use."),
    ],
)
def test_tags_have_limits(tags: dict[str, str], said: str) -> None:
    check_tags({"a" * 128: "b" * 256, **{f"k{number}": "" for number in range(49)}}, "jobs")
    assert refusal(lambda: check_tags(tags, "jobs")) == ("InvalidParameterValue", said)


# --- what a queue shows -----------------------------------------------------------------------------------------------


def test_a_queue_of_the_native_api_is_shown_with_whole_seconds() -> None:
    settings = QueueSettings(lease_ms=1999, body_bytes_max=7, retention_ms=60_999, delay_ms=1500, dead_letter_queue="d")
    info = QueueInfo("q", settings, 1_700_000_000_999, 1, 2, 3, 4, dead=5, changed_ms=1_700_000_001_999)
    shown = sqs_queues.shown(info)
    assert shown == {
        "QueueArn": "arn:aws:sqs:us-east-1:000000000000:q",
        "ApproximateNumberOfMessages": "1",
        "ApproximateNumberOfMessagesNotVisible": "2",
        "ApproximateNumberOfMessagesDelayed": "3",
        "CreatedTimestamp": "1700000000",
        "LastModifiedTimestamp": "1700000001",
        "VisibilityTimeout": "1",
        "MaximumMessageSize": "7",
        "MessageRetentionPeriod": "60",
        "DelaySeconds": "1",
        "ReceiveMessageWaitTimeSeconds": "0",
        "SqsManagedSseEnabled": "false",
    }


async def test_a_new_queue_has_the_attributes_of_sqs(sqs: Caller) -> None:
    url = (await sqs("GetQueueUrl", QueueName="jobs"))["QueueUrl"]
    assert url == f"http://127.0.0.1:{sqs.gateway.port}/000000000000/jobs"
    shown = (await sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    assert (shown["VisibilityTimeout"], shown["MaximumMessageSize"], shown["MessageRetentionPeriod"]) == (
        "30",
        "1048576",
        "345600",
    )
    few = await sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=["QueueArn", "Policy", "FifoQueue"])
    assert few["Attributes"] == {"QueueArn": "arn:aws:sqs:us-east-1:000000000000:jobs"}
    assert (await sqs("GetQueueAttributes", QueueUrl=url)).get("Attributes", {}) == {}
    assert (await refused(sqs, "GetQueueAttributes", QueueUrl=url, AttributeNames=["Nope"]))[1:] == (
        "InvalidAttributeName",
        "Unknown Attribute Nope.",
    )


async def test_a_queue_is_created_once_and_found_again_if_it_is_as_asked(sqs: Caller) -> None:
    given = {"VisibilityTimeout": "60", "MessageRetentionPeriod": "3600", "DelaySeconds": "0", "Policy": ""}
    url = (await sqs("CreateQueue", QueueName="new", Attributes=given))["QueueUrl"]
    assert (await sqs("CreateQueue", QueueName="new", Attributes={"VisibilityTimeout": "060"}))["QueueUrl"] == url
    assert (await sqs("CreateQueue", QueueName="new"))["QueueUrl"] == url
    assert await refused(sqs, "CreateQueue", QueueName="new", Attributes={"VisibilityTimeout": "61"}) == (
        400,
        "QueueAlreadyExists",
        "A queue already exists with the same name and a different value for attribute VisibilityTimeout",
    )
    shown = (await sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    assert (shown["VisibilityTimeout"], shown["MessageRetentionPeriod"]) == ("60", "3600")


async def test_a_queue_is_not_created_when_it_is_not_known_whether_it_is_there(sqs: Caller) -> None:
    sqs.gateway.client.refuses_with = Refused(codes.STALE_OPERATION)
    assert (await refused(sqs, "CreateQueue", QueueName="new"))[:2] == (503, "ServiceUnavailable")
    assert sqs.gateway.client.asked[-1] == GetQueue("new")


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({"VisibilityTimeout": "0"}, {}),
        ({"ReceiveMessageWaitTimeSeconds": "20"}, {}),
        ({"Policy": '{"Statement": []}'}, {}),
        ({"SqsManagedSseEnabled": "true"}, {}),
        ({"KmsMasterKeyId": "alias/a"}, {"KmsDataKeyReusePeriodSeconds": "300"}),
        ({"KmsMasterKeyId": "alias/a", "KmsDataKeyReusePeriodSeconds": "60"}, {}),
        ({"RedriveAllowPolicy": '{"redrivePermission":"denyAll"}'}, {}),
        (
            {
                "RedriveAllowPolicy": '{"redrivePermission":"byQueue","sourceQueueArns":'
                '["arn:aws:sqs:us-east-1:000000000000:a"]}'
            },
            {},
        ),
    ],
)
async def test_what_a_queue_is_told_it_shows_and_is_found_by(
    sqs: Caller, given: dict[str, str], more: dict[str, str]
) -> None:
    before = (await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=["All"]))["Attributes"]
    await sqs("CreateQueue", QueueName="new", Attributes=given)
    assert await sqs("CreateQueue", QueueName="new", Attributes=given)
    shown = (await sqs("GetQueueAttributes", QueueUrl="new", AttributeNames=["All"]))["Attributes"]
    assert {name: text for name, text in shown.items() if name != "QueueArn"} == {
        name: text for name, text in (before | given | more).items() if name != "QueueArn"
    }
    for name in given:
        differs = {"QueueName": "jobs", "Attributes": {name: given[name]}}
        assert (await refused(sqs, "CreateQueue", **differs))[1] == "QueueAlreadyExists"


async def test_attributes_that_are_only_kept_can_be_taken_back(sqs: Caller) -> None:
    kms = {"KmsMasterKeyId": "alias/a", "KmsDataKeyReusePeriodSeconds": "60", "Policy": "{}"}
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes=kms)
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"SqsManagedSseEnabled": "true", "Policy": ""})
    shown = (await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=["All"]))["Attributes"]
    assert (shown["SqsManagedSseEnabled"], "KmsMasterKeyId" in shown, "Policy" in shown) == ("true", False, False)
    both = {"KmsMasterKeyId": "alias/a", "SqsManagedSseEnabled": "true"}
    told = await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes=both)
    assert told[1:] == (
        "InvalidAttributeValue",
        "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.",
    )
    policy = '{"a":"' + "x" * 8200 + '"}'
    told = await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes={"Policy": policy})
    assert told[1:] == ("InvalidAttributeValue", "Invalid value for the parameter Policy.")


async def test_a_dead_letter_queue_chooses_its_sources(sqs: Caller) -> None:
    dead = "arn:aws:sqs:us-east-1:000000000000:dead"
    policy = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 3})
    allow = json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [ARN + "friend"]})
    await sqs("CreateQueue", QueueName="dead", Attributes={"RedriveAllowPolicy": allow})
    await sqs("CreateQueue", QueueName="friend", Attributes={"RedrivePolicy": policy})
    for action, asked in (("CreateQueue", {"QueueName": "other"}), ("SetQueueAttributes", {"QueueUrl": "jobs"})):
        assert await refused(sqs, action, **asked, Attributes={"RedrivePolicy": policy}) == (
            400,
            "InvalidParameterValue",
            "The RedriveAllowPolicy of the dead letter queue does not allow this source queue.",
        )
    deny = json.dumps({"redrivePermission": "denyAll"})
    await sqs("SetQueueAttributes", QueueUrl="dead", Attributes={"RedriveAllowPolicy": deny})
    await sqs("SetQueueAttributes", QueueUrl="friend", Attributes={"DelaySeconds": "1"})
    assert (await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes={"RedrivePolicy": policy}))[0] == 400
    allow_all = json.dumps({"redrivePermission": "allowAll"})
    await sqs("SetQueueAttributes", QueueUrl="dead", Attributes={"RedriveAllowPolicy": allow_all})
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"RedrivePolicy": policy})


async def test_throughput_by_group_needs_the_scope_of_a_group(sqs: Caller) -> None:
    high = {"FifoThroughputLimit": "perMessageGroupId", "DeduplicationScope": "messageGroup"}
    await sqs("CreateQueue", QueueName="q.fifo", Attributes={"FifoQueue": "true", **high})
    shown = await sqs("GetQueueAttributes", QueueUrl="q.fifo", AttributeNames=[*high])
    assert shown["Attributes"] == high
    for attributes in ({"DeduplicationScope": "queue"}, high | {"DeduplicationScope": "queue"}):
        told = await refused(sqs, "SetQueueAttributes", QueueUrl="q.fifo", Attributes=attributes)
        assert told[1] == "InvalidAttributeValue"
        assert told[2].startswith("The FifoThroughputLimit attribute can be set to perMessageGroupId only")
    low = {"FifoThroughputLimit": "perQueue", "DeduplicationScope": "queue"}
    await sqs("SetQueueAttributes", QueueUrl="q.fifo", Attributes=low)
    shown = await sqs("GetQueueAttributes", QueueUrl="q.fifo", AttributeNames=[*high])
    assert shown["Attributes"] == low


async def test_a_receive_that_does_not_say_waits_as_long_as_the_queue(sqs: Caller) -> None:
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"ReceiveMessageWaitTimeSeconds": "20"})
    client = sqs.gateway.client
    waiting = asyncio.create_task(sqs("ReceiveMessage", QueueUrl="jobs"))
    await client.waiting.wait()
    assert not (await sqs("ReceiveMessage", QueueUrl="jobs", WaitTimeSeconds=0)).get("Messages")
    await sqs("SendMessage", QueueUrl="jobs", MessageBody="a")
    assert [message["Body"] for message in (await waiting)["Messages"]] == ["a"]


async def test_with_no_visibility_timeout_a_message_is_there_again_at_once(sqs: Caller) -> None:
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"VisibilityTimeout": "0"})
    await sqs("SendMessage", QueueUrl="jobs", MessageBody="a")
    for count in ("1", "2"):
        (got,) = (await sqs("ReceiveMessage", QueueUrl="jobs", AttributeNames=["All"]))["Messages"]
        assert got["Attributes"]["ApproximateReceiveCount"] == count
        sqs.gateway.client.pass_time(0)


# --- tags -------------------------------------------------------------------------------------------------------------


async def test_tags_are_put_on_and_taken_off(sqs: Caller) -> None:
    await sqs("CreateQueue", QueueName="new", tags={"team": "sails", "colour": ""})
    await sqs("TagQueue", QueueUrl="new", Tags={"team": "oars", "größe": "ü"})
    assert (await sqs("ListQueueTags", QueueUrl="new"))["Tags"] == {"team": "oars", "colour": "", "größe": "ü"}
    await sqs("SetQueueAttributes", QueueUrl="new", Attributes={"DelaySeconds": "1"})
    await sqs("UntagQueue", QueueUrl="new", TagKeys=["colour", "none"])
    assert (await sqs("ListQueueTags", QueueUrl="new"))["Tags"] == {"team": "oars", "größe": "ü"}
    native = await asking.ask(sqs.gateway, "GET", "/v1/queues/new")
    assert native["settings"]["tags"] == {"team": "oars", "größe": "ü"}
    assert "Tags" not in await sqs("ListQueueTags", QueueUrl="jobs")


async def test_tags_that_cannot_be(sqs: Caller) -> None:
    await sqs("TagQueue", QueueUrl="jobs", Tags={str(number): "x" for number in range(49)})
    invalid = "InvalidParameterValue"
    for tags, said in (
        ({"a": "b", "c": "d"}, "Too many tags added for queue jobs."),
        ({"aws:a": "b"}, "Tag keys beginning with 'aws:' are reserved for internal use."),
        ({"x" * 129: "b"}, "Tag keys must be between 1 and 128 characters in length."),
        ({"a": "x" * 257}, "Tag values must be between 0 and 256 characters in length."),
    ):
        assert await refused(sqs, "TagQueue", QueueUrl="jobs", Tags=tags) == (400, invalid, said)
    assert len((await sqs("ListQueueTags", QueueUrl="jobs"))["Tags"]) == 49
    for action, asked in (("TagQueue", {"Tags": {}}), ("UntagQueue", {"TagKeys": []})):
        assert (await refused(sqs, action, QueueUrl="jobs", **asked))[1] == "MissingParameter"
    for action, asked in (
        ("TagQueue", {"Tags": {"a": "b"}}),
        ("UntagQueue", {"TagKeys": ["a"]}),
        ("ListQueueTags", {}),
        ("AddPermission", {"Label": "l", "AWSAccountIds": ["1" * 12], "Actions": ["*"]}),
        ("RemovePermission", {"Label": "l"}),
    ):
        told = await refused(sqs, action, QueueUrl="nope", **asked)
        assert told[1] == "AWS.SimpleQueueService.NonExistentQueue"
    huge = {f"{number:02d}" + "ü" * 100: "ü" * 256 for number in range(40)}
    assert (await refused(sqs, "CreateQueue", QueueName="new", tags=huge))[1] == "OverLimit"


# --- permissions ------------------------------------------------------------------------------------------------------


async def test_permissions_become_statements_of_the_policy(sqs: Caller) -> None:
    one = {"Label": "one", "AWSAccountIds": ["1" * 12], "Actions": ["SendMessage"]}
    await sqs("AddPermission", QueueUrl="jobs", **one)
    two = {"Label": "two", "AWSAccountIds": ["1" * 12, "2" * 12], "Actions": ["ReceiveMessage", "GetQueueUrl"]}
    await sqs("AddPermission", QueueUrl="jobs", **two)

    async def policy() -> Any:
        shown = await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=["Policy"])
        return json.loads(shown.get("Attributes", {}).get("Policy", "null"))

    arn = "arn:aws:sqs:us-east-1:000000000000:jobs"
    assert await policy() == {
        "Version": "2008-10-17",
        "Id": f"{arn}/SQSDefaultPolicy",
        "Statement": [
            {
                "Sid": "one",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{'1' * 12}:root"},
                "Action": "SQS:SendMessage",
                "Resource": arn,
            },
            {
                "Sid": "two",
                "Effect": "Allow",
                "Principal": {"AWS": [f"arn:aws:iam::{'1' * 12}:root", f"arn:aws:iam::{'2' * 12}:root"]},
                "Action": ["SQS:ReceiveMessage", "SQS:GetQueueUrl"],
                "Resource": arn,
            },
        ],
    }
    again = await refused(sqs, "AddPermission", QueueUrl="jobs", **one)
    assert again[1:] == (
        "InvalidParameterValue",
        "Value one for parameter Label is invalid. Reason: Already exists.",
    )
    await sqs("RemovePermission", QueueUrl="jobs", Label="one")
    assert [each["Sid"] for each in (await policy())["Statement"]] == ["two"]
    gone = await refused(sqs, "RemovePermission", QueueUrl="jobs", Label="one")
    assert gone[2] == "Value one for parameter Label is invalid. Reason: can't find label."
    await sqs("RemovePermission", QueueUrl="jobs", Label="two")
    assert await policy() is None


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"Label": "a b"}, "InvalidParameterValue", "Value a b for parameter Label"),
        ({"AWSAccountIds": ["1"]}, "InvalidParameterValue", "Value 1 for parameter PrincipalId is invalid"),
        ({"AWSAccountIds": []}, "MissingParameter", "The request must contain the parameter PrincipalId"),
        ({"Actions": []}, "MissingParameter", "The request must contain the parameter Actions"),
        ({"Actions": ["DeleteQueue"]}, "InvalidParameterValue", "Value SQS:DeleteQueue for parameter ActionName"),
        ({"Actions": ["*"] * 8}, "OverLimit", "8 Actions were found, maximum allowed is 7."),
    ],
)
async def test_permissions_that_cannot_be(sqs: Caller, change: dict[str, Any], code: str, said: str) -> None:
    asked = {"Label": "l", "AWSAccountIds": ["1" * 12], "Actions": ["*"]} | change
    told = await refused(sqs, "AddPermission", QueueUrl="jobs", **asked)
    assert told[1] == code
    assert told[2].startswith(said)


async def test_a_policy_of_any_form_is_added_to(sqs_json: Caller) -> None:
    for policy in ('{"Statement": {"Sid": "x"}}', '{"Statement": ["odd", {"Sid": 7}]}', '{"Statement": null}'):
        await sqs_json("SetQueueAttributes", QueueUrl="jobs", Attributes={"Policy": policy})
        asked = {"QueueUrl": "jobs", "Label": "l", "AWSAccountIds": ["1" * 12], "Actions": ["*"]}
        await sqs_json("AddPermission", **asked)
        await sqs_json("RemovePermission", QueueUrl="jobs", Label="l")


# --- kinds ------------------------------------------------------------------------------------------------------------


async def test_a_fifo_queue_shows_what_it_was_told(sqs: Caller) -> None:
    given = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "DeduplicationScope": "messageGroup"}
    await sqs("CreateQueue", QueueName="q.fifo", Attributes=given)
    asked = [*given, "FifoThroughputLimit"]
    shown = await sqs("GetQueueAttributes", QueueUrl="q.fifo", AttributeNames=asked)
    assert shown["Attributes"] == given | {"FifoThroughputLimit": "perQueue"}
    assert await sqs("CreateQueue", QueueName="q.fifo", Attributes=given)
    await sqs("SetQueueAttributes", QueueUrl="q.fifo", Attributes={"DeduplicationScope": "queue", "FifoQueue": "true"})
    await sqs("SetQueueAttributes", QueueUrl="q.fifo", Attributes={"ContentBasedDeduplication": "false"})
    shown = await sqs("GetQueueAttributes", QueueUrl="q.fifo", AttributeNames=[*given])
    assert shown["Attributes"] == {
        "FifoQueue": "true",
        "ContentBasedDeduplication": "false",
        "DeduplicationScope": "queue",
    }
    assert await refused(sqs, "CreateQueue", QueueName="q.fifo", Attributes=given) == (
        400,
        "QueueAlreadyExists",
        "A queue already exists with the same name and a different value for attribute ContentBasedDeduplication",
    )
    assert await refused(sqs, "SetQueueAttributes", QueueUrl="q.fifo", Attributes={"FifoQueue": "false"}) == (
        400,
        "InvalidAttributeValue",
        "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
    )


# --- changing ---------------------------------------------------------------------------------------------------------


async def test_attributes_are_changed_and_the_others_stay(sqs: Caller) -> None:
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"VisibilityTimeout": "7", "DelaySeconds": "900"})
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"MessageRetentionPeriod": "60"})
    names = ["VisibilityTimeout", "DelaySeconds", "MessageRetentionPeriod", "MaximumMessageSize"]
    shown = await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=names)
    assert shown["Attributes"] == dict(zip(names, ["7", "900", "60", "1048576"], strict=True))
    for attributes, code in (
        ({}, "MissingParameter"),
        ({"FifoQueue": "true"}, "InvalidAttributeName"),
        ({"QueueArn": "a"}, "InvalidAttributeName"),
        ({"VisibilityTimeout": "-1"}, "InvalidAttributeValue"),
    ):
        assert (await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes=attributes))[:2] == (400, code)
    assert (await refused(sqs, "SetQueueAttributes", QueueUrl="nope", Attributes={"DelaySeconds": "1"}))[0] == 400


async def test_what_the_native_api_has_set_stays_as_well(sqs_json: Caller) -> None:
    settings = {"lease_ms": 5000, "history_ms": 60_000, "attempts_max": 3}
    await asking.ask(sqs_json.gateway, "PUT", "/v1/queues/jobs", settings)
    await sqs_json("SetQueueAttributes", QueueUrl="jobs", Attributes={"DelaySeconds": "2"})
    client = sqs_json.gateway.client
    found = (await client.submit(GetQueue("jobs"), timeout_ms=1)).outcome
    assert isinstance(found, QueueInfo)
    assert found.settings == QueueSettings(lease_ms=5000, history_ms=60_000, attempts_max=3, delay_ms=2000)


async def test_two_that_change_a_queue_at_once_lose_nothing_of_each_other(
    sqs: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, submit = sqs.gateway.client, sqs.gateway.client.submit
    others = iter([{"lease_ms": 9000}, {"lease_ms": 8000}])

    async def contended(operation: Any, block: bytes = b"", *, timeout_ms: int) -> Any:
        """Somebody else changes the queue between our look and our change, twice."""
        if isinstance(operation, PutQueue) and (other := next(others, None)) is not None:
            before = (await submit(GetQueue("jobs"), timeout_ms=1)).outcome.settings
            await submit(PutQueue("jobs", msgspec.structs.replace(before, **other)), timeout_ms=1)
        return await submit(operation, block, timeout_ms=timeout_ms)

    monkeypatch.setattr(client, "submit", contended)
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"DelaySeconds": "3"})
    names = ["VisibilityTimeout", "DelaySeconds"]
    shown = await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=names)
    assert shown["Attributes"] == {"VisibilityTimeout": "8", "DelaySeconds": "3"}
    others = iter([{"lease_ms": 1000 * second} for second in range(10, 40)])
    assert await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes={"DelaySeconds": "4"}) == (
        503,
        "ServiceUnavailable",
        "Others change the queue. Send it again.",
    )


async def test_of_two_that_create_a_queue_at_once_the_second_hears_of_the_first(
    sqs: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, submit = sqs.gateway.client, sqs.gateway.client.submit

    async def faster(operation: Any, block: bytes = b"", *, timeout_ms: int) -> Any:
        """Somebody else creates the queue between our look and our creation."""
        if isinstance(operation, PutQueue):
            await submit(PutQueue(operation.queue, QueueSettings(lease_ms=60_000)), timeout_ms=1)
        return await submit(operation, block, timeout_ms=timeout_ms)

    monkeypatch.setattr(client, "submit", faster)
    assert await sqs("CreateQueue", QueueName="same", Attributes={"VisibilityTimeout": "60"})
    assert await refused(sqs, "CreateQueue", QueueName="other", Attributes={"VisibilityTimeout": "61"}) == (
        400,
        "QueueAlreadyExists",
        "A queue already exists with the same name and a different value for attribute VisibilityTimeout",
    )


# --- dead letters -----------------------------------------------------------------------------------------------------


def redrive(queue: str, count: int | str = 2) -> dict[str, str]:
    return {"RedrivePolicy": json.dumps({"deadLetterTargetArn": ARN + queue, "maxReceiveCount": count})}


async def test_a_dead_letter_queue_is_told_shown_and_taken_back(sqs: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    await sqs("CreateQueue", QueueName="dead")
    await sqs("CreateQueue", QueueName="new", Attributes=redrive("dead"))
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes=redrive("dead", "1000"))
    shown = await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=["RedrivePolicy"])
    arn = "arn:aws:sqs:us-east-1:000000000000:dead"
    assert json.loads(shown["Attributes"]["RedrivePolicy"]) == {"deadLetterTargetArn": arn, "maxReceiveCount": 1000}
    assert await sqs("CreateQueue", QueueName="jobs", Attributes=redrive("dead", 1000))
    assert (await refused(sqs, "CreateQueue", QueueName="jobs", Attributes=redrive("dead", 999)))[
        1
    ] == "QueueAlreadyExists"

    async def sources(**asked: object) -> tuple[list[str], str | None]:
        page = await sqs("ListDeadLetterSourceQueues", QueueUrl="dead", **asked)
        return [url.rpartition("/")[2] for url in page.get("queueUrls", [])], page.get("NextToken")

    assert await sources() == (["jobs", "new"], None)
    first, token = await sources(MaxResults=1)
    assert first == ["jobs"]
    assert await sources(MaxResults=1, NextToken=token) == (["new"], None)
    native = {"dead_letter_queue": "dead", "overflow": "dead_letter", "messages_max": 5}
    await asking.ask(sqs.gateway, "PUT", "/v1/queues/full", native)  # what does not fit goes there, not what fails
    monkeypatch.setattr("api.aws.queue_actions.SCAN_MAX", 1)
    assert await sources() == (["jobs", "new"], None)
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"RedrivePolicy": ""})
    assert await sources() == (["new"], None)
    assert await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=["RedrivePolicy"]) in (
        {},
        {"Attributes": {}},
    )
    assert (await refused(sqs, "ListDeadLetterSourceQueues", QueueUrl="nope"))[1].endswith("NonExistentQueue")


@pytest.mark.parametrize(
    ("settings", "attributes", "said"),
    [
        (
            {"fifo": True},
            {"ContentBasedDeduplication": "true"},
            "dedup_by does not allow it: what was sent before is known within dedup_window_ms, which is 0",
        ),
        (
            {"fifo": True, "dead_letter_queue": "dead.fifo", "attempts_max": 3, "on_expiry": "dead_letter"},
            {"RedrivePolicy": ""},
            "on_expiry does not allow it: there is no dead_letter_queue to take what expires",
        ),
    ],
    ids=["dedup_by", "on_expiry"],
)
async def test_what_does_not_go_with_a_native_setting_is_refused_for_that_reason(
    sqs: Caller, settings: dict[str, Any], attributes: dict[str, str], said: str
) -> None:
    assert (await asking.ask(sqs.gateway, "PUT", "/v1/queues/dead.fifo", {"fifo": True})).status == 201
    assert (await asking.ask(sqs.gateway, "PUT", "/v1/queues/q.fifo", settings)).status == 201
    told = await refused(sqs, "SetQueueAttributes", QueueUrl="q.fifo", Attributes=attributes)
    assert told == (400, "InvalidAttributeValue", f"The queue's setting {said}.")


async def test_dead_letter_queues_that_cannot_be_are_refused(sqs: Caller) -> None:
    await sqs("CreateQueue", QueueName="q.fifo", Attributes={"FifoQueue": "true"})
    for action, asked in (
        ("CreateQueue", {"QueueName": "new"}),
        ("SetQueueAttributes", {"QueueUrl": "jobs"}),
    ):
        for target, said in (
            ("nope", "Dead letter target does not exist."),
            ("jobs" if action == "SetQueueAttributes" else "new", "A queue cannot be its own dead-letter queue."),
            ("q.fifo", "Dead letter queue of a FIFO queue must also be a FIFO queue."),
        ):
            status, code, words = await refused(sqs, action, Attributes=redrive(target), **asked)
            assert (status, code) == (400, "InvalidParameterValue")
            assert said in words


async def test_queues_are_listed_by_the_beginning_of_their_name_page_by_page(sqs: Caller) -> None:
    for name in ("a", "ab", "ab-1", "ab_2", "abz", "b", "aa", "AB"):
        await sqs("CreateQueue", QueueName=name)

    async def listed(**asked: object) -> tuple[list[str], str | None]:
        page = await sqs("ListQueues", **asked)
        return [url.rpartition("/")[2] for url in page.get("QueueUrls", [])], page.get("NextToken")

    assert await listed() == (["AB", "a", "aa", "ab", "ab-1", "ab_2", "abz", "b", "jobs"], None)
    assert await listed(QueueNamePrefix="ab") == (["ab", "ab-1", "ab_2", "abz"], None)
    for nothing in ("abc", "é", "a b", "\x00", "z", "."):
        assert await listed(QueueNamePrefix=nothing) == ([], None)
    found: list[str] = []
    token: dict[str, object] = {}
    for _ in range(10):
        page, after = await listed(QueueNamePrefix="a", MaxResults=2, **token)
        found += page
        if after is None:
            break
        token = {"NextToken": after}
    assert found == ["a", "aa", "ab", "ab-1", "ab_2", "abz"]
    assert (await listed(MaxResults=9))[1] is None
    assert (await listed(QueueNamePrefix="b", MaxResults=1))[0] == ["b"]  # however many begin with an a
    for wrong in (0, 1001, -1):
        assert (await refused(sqs, "ListQueues", MaxResults=wrong))[1] == "InvalidParameterValue"
    assert (await refused(sqs, "ListQueues", NextToken="é"))[1] == "InvalidParameterValue"


async def test_a_queue_that_is_not_there_is_told_by_every_action(sqs: Caller) -> None:
    words = "The specified queue does not exist" + ("." if sqs.in_json else " for this wsdl version.")
    missing = (400, "AWS.SimpleQueueService.NonExistentQueue", words)
    handle = "1" + "0" * 15 + "1" + "1"
    for url in ("http://a/0/nope", "http://a/0/no such queue", ""):
        for action, asked in {
            "GetQueueAttributes": {},
            "SetQueueAttributes": {"Attributes": {"DelaySeconds": "1"}},
            "ListDeadLetterSourceQueues": {},
            "PurgeQueue": {},
            "DeleteQueue": {},
            "SendMessage": {"MessageBody": "a"},
            "SendMessageBatch": {"Entries": [{"Id": "a", "MessageBody": "a"}]},
            "ReceiveMessage": {},
            "DeleteMessage": {"ReceiptHandle": handle},
            "DeleteMessageBatch": {"Entries": [{"Id": "a", "ReceiptHandle": handle}]},
            "ChangeMessageVisibility": {"ReceiptHandle": handle, "VisibilityTimeout": 1},
            "ChangeMessageVisibilityBatch": {"Entries": [{"Id": "a", "ReceiptHandle": handle, "VisibilityTimeout": 1}]},
        }.items():
            assert await refused(sqs, action, QueueUrl=url, **asked) == missing, action
    for name in ("nope", "no such queue", ""):
        assert await refused(sqs, "GetQueueUrl", QueueName=name) == missing


async def test_queues_are_purged_and_deleted_at_once_and_again(sqs: Caller) -> None:
    for _ in range(2):
        await sqs("SendMessage", QueueUrl="jobs", MessageBody="a")
        await sqs("PurgeQueue", QueueUrl="jobs")
        assert await sqs("ReceiveMessage", QueueUrl="jobs") == {}
    for _ in range(2):
        await sqs("DeleteQueue", QueueUrl="jobs")
        assert (await refused(sqs, "GetQueueUrl", QueueName="jobs"))[0] == 400
        await sqs("CreateQueue", QueueName="jobs")
