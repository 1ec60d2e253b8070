"""Tags and permissions of SQS's queues."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api import asking
from tests.aws.asking import Caller, refused

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
