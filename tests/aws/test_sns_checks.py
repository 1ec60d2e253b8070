"""What SNS refuses, with the words that AWS was seen to use where they are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.aws import sns_checks as checks
from api.aws import sns_shapes as shapes
from api.aws.digests import Attribute
from api.aws.errors import AwsError
from tests.aws import models

TOPIC, FIFO = "arn:aws:sns:eu-west-1:123456789012:news", "arn:aws:sns:eu-west-1:123456789012:news.fifo"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:jobs"


def refusal(act: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(AwsError) as refused:
        act()
    return refused.value.code, refused.value.message


# --- names ------------------------------------------------------------------------------------------------------------


def test_arns_mean_what_their_sixth_element_says() -> None:
    assert checks.topic_of_arn(checks.topic_arn("news")) == checks.topic_of_arn(TOPIC) == "news"
    arn = checks.subscription_arn("news.fifo", "a-b")
    assert checks.subscription_of_arn(arn) == ("news.fifo", "a-b")
    assert checks.topic_of_arn(arn) == "news.fifo"


@pytest.mark.parametrize(
    ("arn", "said"),
    [
        ("randomstring", "Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements, not 1"),
        ("a:b", "Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements, not 2"),
        ("", "Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements, not 1"),
        ("arn:aws:sqs:eu-west-1:1:news", "Invalid parameter: TopicArn"),
        ("arn:aws:sns:eu-west-1:1:a b", "Invalid parameter: TopicArn"),
        ("arn:aws:sns:eu-west-1:1:" + "a" * 257, "Invalid parameter: TopicArn"),
    ],
)
def test_what_is_no_arn_of_a_topic(arn: str, said: str) -> None:
    assert refusal(lambda: checks.topic_of_arn(arn)) == ("InvalidParameter", said)


@pytest.mark.parametrize(
    ("arn", "said"),
    [
        ("", "Invalid parameter: SubscriptionArn Reason: no value for required parameter"),
        ("x", "Invalid parameter: SubscriptionArn Reason: An ARN must have at least 6 elements, not 1"),
        (TOPIC, "Invalid parameter: SubscriptionId"),
        (TOPIC + ":", "Invalid parameter: SubscriptionId"),
        (TOPIC + ":a:b", "Invalid parameter: SubscriptionId"),
    ],
)
def test_what_is_no_arn_of_a_subscription(arn: str, said: str) -> None:
    assert refusal(lambda: checks.subscription_of_arn(arn)) == ("InvalidParameter", said)


# --- topics -----------------------------------------------------------------------------------------------------------


def topic(name: str, tags: list[tuple[str, str]] | None = None, **attributes: str) -> shapes.CreateTopic:
    told = [shapes.Tag(key=key, value=value) for key, value in tags or []]
    return shapes.CreateTopic(name=name, attributes=attributes or None, tags=told or None)


def test_topics_that_may_be_created() -> None:
    assert checks.check_topic(topic("a" * 80)) == {}
    assert checks.check_topic(topic("a.fifo", [("k", "v")], FifoTopic="True", ContentBasedDeduplication="false")) == {
        "FifoTopic": "true",
        "ContentBasedDeduplication": "false",
    }
    assert checks.check_topic(topic("a", DisplayName="x", Policy="{}")) == {"DisplayName": "x", "Policy": ""}


FIFO_NAMES = (
    "Invalid parameter: Fifo Topic names must end with .fifo and must be made up of only uppercase and lowercase ASCII "
    "letters, numbers, underscores, and hyphens, and must be between 1 and 256 characters long."
)


@pytest.mark.parametrize(
    ("wish", "code", "said"),
    [
        (topic(""), "InvalidParameter", "Invalid parameter: Topic Name"),
        (topic("a" * 257), "InvalidParameter", "Invalid parameter: Topic Name"),
        (topic("a" * 81), "InvalidParameter", "Topic Name Reason: names have at most 80 characters here"),
        (topic("a b"), "InvalidParameter", "Invalid parameter: Topic Name"),
        (topic("a.b"), "InvalidParameter", "Invalid parameter: Topic Name"),
        (topic("a.fifo"), "InvalidParameter", FIFO_NAMES),
        (topic("a", FifoTopic="true"), "InvalidParameter", FIFO_NAMES),
        (topic("a", FifoTopic="x"), "InvalidParameter", "FifoTopic: Invalid value [x]. Must be true or false."),
        (topic("a", Nope="x"), "InvalidParameter", "Invalid parameter: AttributeName"),
        (topic("a", Policy="x"), "InvalidParameter", "Policy: failed to parse JSON."),
        (topic("a", ContentBasedDeduplication="true"), "InvalidParameter", "can only be set for FIFO topics"),
        (topic("a", FifoThroughputScope="Topic"), "InvalidParameter", "of a FIFO topic"),
        (topic("a.fifo", FifoTopic="true", FifoThroughputScope="x"), "InvalidParameter", "it is Topic or MessageGroup"),
        *(
            (topic("a", **{name: text}), "InvalidParameter", f"{name} Reason: it is not supported")
            for name, text in (
                ("ArchivePolicy", '{"MessageRetentionPeriod": 1}'),
                ("KmsMasterKeyId", "k"),
                ("Policy", '{"Id": "x"}'),
                ("SignatureVersion", "2"),
                ("TracingConfig", "Active"),
            )
        ),
        (topic("a", [("k", "a"), ("k", "b")]), "InvalidParameter", "Duplicated keys are not allowed."),
        (topic("a", [(str(n), "") for n in range(51)]), "TagLimitExceeded", "tag quota"),
        (topic("a", [("aws:a", "")]), "InvalidParameter", "Tags Reason"),
        (topic("a", [("", "")]), "InvalidParameter", "Tags Reason"),
    ],
)
def test_topics_that_may_not(wish: shapes.CreateTopic, code: str, said: str) -> None:
    found = refusal(lambda: checks.check_topic(wish))
    assert found[0] == code
    assert said in found[1]


# --- subscriptions ----------------------------------------------------------------------------------------------------


def subscription(**changes: Any) -> shapes.Subscribe:
    return shapes.Subscribe(**{"topic_arn": TOPIC, "protocol": "sqs", "endpoint": QUEUE} | changes)


def test_subscriptions_that_may_be_made() -> None:
    given_attributes = {
        "RawMessageDelivery": "TRUE",
        "FilterPolicyScope": "MessageBody",
        "FilterPolicy": '{"a": {"b": ["c"]}}',
        "RedrivePolicy": "",
    }
    found = checks.check_subscription(subscription(attributes=given_attributes))
    assert found == ("news", "jobs", given_attributes | {"RawMessageDelivery": "true"})
    assert checks.check_subscription(subscription(topic_arn=FIFO, endpoint=QUEUE + ".fifo"))[1] == "jobs.fifo"
    for none in (None, "", "{}", " { } "):
        assert checks.check_subscription_attribute("FilterPolicy", none, topic="news", scope="MessageAttributes") == ""
    five = '{"a": {"b": ["c"], "d": ["e", "f"]}, "$or": [{"g": ["h"]}, {"i": ["j"]}], "k": ["l"]}'
    assert checks.check_subscription_attribute("FilterPolicy", five, topic="news", scope="MessageBody") == five


@pytest.mark.parametrize(
    ("wish", "code", "said"),
    [
        (subscription(protocol="test"), "InvalidParameter", "Amazon SNS does not support this protocol string: test"),
        (subscription(protocol="email"), "InvalidParameter", "email is not supported here, only sqs is"),
        (subscription(endpoint=None), "NotFound", "Endpoint not specified in subscription"),
        (subscription(endpoint="http://a/0/jobs"), "InvalidParameter", "Invalid parameter: SQS endpoint ARN"),
        (
            subscription(endpoint=QUEUE + ".fifo"),
            "InvalidParameter",
            "FIFO SQS Queues can not be subscribed to standard",
        ),
        (
            subscription(attributes={"RawMessageDelivery": "wrongvalue"}),
            "InvalidParameter",
            "parameter: Attributes Reason: RawMessageDelivery: Invalid value [wrongvalue]. Must be true or false.",
        ),
        (
            subscription(attributes={"FilterPolicy": "invalid"}),
            "InvalidParameter",
            "Invalid parameter: Attributes Reason: FilterPolicy: ",
        ),
        # Objects nest in filters of bodies only.
        (subscription(attributes={"FilterPolicy": '{"a": {"b": ["c"]}}'}), "InvalidParameter", "FilterPolicy: /a"),
        (
            subscription(attributes={"FilterPolicy": json.dumps({str(n): ["x"] for n in range(6)})}),
            "InvalidParameter",
            "FilterPolicy: Filter policy can not have more than 5 keys",
        ),
        (
            subscription(attributes={"RedrivePolicy": json.dumps({"deadLetterTargetArn": QUEUE})}),
            "InvalidParameter",
            "RedrivePolicy Reason: it is not supported, it needs dead-letter queues of subscriptions",
        ),
        (subscription(attributes={"DeliveryPolicy": '{"a": 1}'}), "InvalidParameter", "DeliveryPolicy Reason"),
        (subscription(attributes={"FilterPolicyScope": "x"}), "InvalidParameter", "MessageBody or MessageAttributes"),
        (subscription(attributes={"RedrivePolicy": "{invalidjson}"}), "InvalidParameter", "failed to parse JSON"),
        (
            subscription(attributes={"RedrivePolicy": '{"deadLetterTargetArn": "fake"}'}),
            "InvalidParameter",
            "RedrivePolicy: deadLetterTargetArn is an invalid arn",
        ),
        (
            subscription(topic_arn=FIFO, attributes={"RedrivePolicy": json.dumps({"deadLetterTargetArn": QUEUE})}),
            "InvalidParameter",
            "must use a FIFO queue as DLQ for a FIFO Subscription to a FIFO Topic.",
        ),
        (subscription(attributes={"Nope": "x"}), "InvalidParameter", "Invalid parameter: AttributeName"),
        (subscription(attributes={"DeliveryPolicy": "x"}), "InvalidParameter", "DeliveryPolicy: failed to parse JSON."),
    ],
)
def test_subscriptions_that_may_not(wish: shapes.Subscribe, code: str, said: str) -> None:
    found = refusal(lambda: checks.check_subscription(wish))
    assert found[0] == code
    assert said in found[1]


def test_an_attribute_that_is_set_alone_is_refused_without_the_prefix() -> None:
    def wrong() -> str:
        return checks.check_subscription_attribute("RawMessageDelivery", "", topic="news", scope="MessageBody")

    said = "Invalid parameter: RawMessageDelivery: Invalid value []. Must be true or false."
    assert refusal(wrong) == ("InvalidParameter", said)


# --- messages ---------------------------------------------------------------------------------------------------------


def value(text: str | bytes, kind: str = "String") -> shapes.AttributeValue:
    if isinstance(text, bytes):
        return shapes.AttributeValue(data_type=kind, binary_value=text)
    return shapes.AttributeValue(data_type=kind, string_value=text)


def publish(message: str = "hi", **more: Any) -> shapes.Publish:
    return shapes.Publish(**{"topic_arn": TOPIC, "message": message} | more)


def test_messages_that_may_be_published() -> None:
    attributes = {
        "a.b-C_9": value("x"),
        "n": value("1.5", "Number"),
        "b": value(b"\x00", "Binary"),
        "l": value("[]", "String.Array"),
    }
    asked = publish(message_attributes=attributes, subject="A subject", message_group_id="tenant")
    assert checks.check_publish(asked) == (
        "news",
        checks.Notice(
            "hi",
            "A subject",
            {
                "a.b-C_9": Attribute("String", "x"),
                "n": Attribute("Number", "1.5"),
                "b": Attribute("Binary", b"\x00"),
                "l": Attribute("String.Array", "[]"),
            },
            "tenant",
            None,
        ),
    )
    assert checks.check_publish(publish(topic_arn=None, target_arn=FIFO, message_group_id="g"))[0] == "news.fifo"
    largest = publish("x" * (256 * 1024 - 8), message_attributes={"a": value("b")})
    assert checks.check_publish(largest)[0] == "news"


def test_each_protocol_has_its_part_of_a_structured_message() -> None:
    for told, text in (
        ({"default": "d", "sqs": "s"}, "s"),
        ({"default": "d", "http": "h"}, "d"),
        ({"default": "d", "sqs": 1}, "d"),
    ):
        asked = publish(json.dumps(told), message_structure="json")
        assert checks.check_publish(asked)[1].text == text


STRUCTURE = "Invalid parameter: Message Structure - "


@pytest.mark.parametrize(
    ("wish", "code", "said"),
    [
        (publish(""), "InvalidParameter", "Invalid parameter: Empty message"),
        (publish(subject=""), "InvalidParameter", "Invalid parameter: Subject"),
        (publish(subject="a\nb"), "InvalidParameter", "Invalid parameter: Subject"),
        (publish(subject="a" * 101), "InvalidParameter", "Invalid parameter: Subject"),
        (publish("x" * (256 * 1024 + 1)), "InvalidParameter", "Invalid parameter: Message too long"),
        (
            publish("x" * (256 * 1024 - 7), message_attributes={"a": value("b")}),
            "InvalidParameter",
            "Invalid parameter: Message too long",
        ),
        (
            publish("{}", message_structure="json"),
            "InvalidParameter",
            STRUCTURE + "No default entry in JSON message body",
        ),
        (publish("{", message_structure="json"), "InvalidParameter", STRUCTURE + "JSON message body failed to parse"),
        (publish(message_structure="xml"), "InvalidParameter", "Invalid parameter: MessageStructure"),
        (publish(phone_number="+1"), "InvalidParameter", "PhoneNumber"),
        (publish(topic_arn=None), "InvalidParameter", "TopicArn or TargetArn"),
        (publish(topic_arn="a:b"), "InvalidParameter", "TopicArn Reason: An ARN must have at least 6 elements, not 2"),
        (publish(topic_arn=None, target_arn="x"), "InvalidParameter", "TargetArn Reason: An ARN must have at least 6"),
        (
            publish(topic_arn=FIFO),
            "InvalidParameter",
            "Invalid parameter: The MessageGroupId parameter is required for FIFO topics",
        ),
        (
            publish(message_deduplication_id="d"),
            "InvalidParameter",
            "Invalid parameter: MessageDeduplicationId Reason: The request includes MessageDeduplicationId parameter "
            "that is not valid for this topic type",
        ),
        (publish(topic_arn=FIFO, message_group_id="a b"), "InvalidParameter", "MessageGroupId Reason"),
        *(
            (publish(message_attributes={name: given_value}), "ParameterValueInvalid", said)
            for name, given_value, said in (
                (
                    "attr1",
                    value(""),
                    "must contain non-empty message attribute value for message attribute type 'String'.",
                ),
                ("attr1", value(b"", "Binary"), "for message attribute type 'Binary'."),
                ("attr1", value(b"x"), "The message attribute 'attr1' with type 'String' must use field 'String'."),
                ("attr1", value(b"x", "Number"), "with type 'Number' must use field 'String'."),
                ("attr1", value("x", "Binary"), "with type 'Binary' must use field 'Binary'."),
                ("attr1", value("x", "Number"), "Could not cast message attribute 'attr1' value to number."),
                ("attr1", value("x", "Invalid"), "the set of supported type prefixes is Binary, Number, and String."),
                ("a" * 256, value("x"), "Length of message attribute name must be less than 256 bytes."),
                ("", value("x"), "Length of message attribute name must be less than 256 bytes."),
                (
                    "a^",
                    value("x"),
                    "Invalid non-alphanumeric character '#x5E' was found in the message attribute name.",
                ),
                (".a", value("x"), "Invalid message attribute name starting with character '.' was found."),
                ("a.", value("x"), "Invalid message attribute name ending with character '.' was found."),
                ("a..b", value("x"), "Message attribute name can not have successive '.' character."),
            )
        ),
    ],
)
def test_messages_that_may_not(wish: shapes.Publish, code: str, said: str) -> None:
    found = refusal(lambda: checks.check_publish(wish))
    assert found[0] == code
    assert said in found[1]


def entry(entry_id: str, message: str = "hi", **more: Any) -> shapes.PublishEntry:
    return shapes.PublishEntry(id=entry_id, message=message, **more)


def test_a_batch_tells_what_is_wrong_with_each_message() -> None:
    wish = shapes.PublishBatch(topic_arn=FIFO, entries=[entry("a", message_group_id="g"), entry("b"), entry("c", "")])
    name, found = checks.check_publish_batch(wish)
    assert name == "news.fifo"
    assert found["a"] == checks.Notice("hi", None, {}, "g", None)
    assert [type(found[each]) for each in "bc"] == [AwsError, AwsError]


@pytest.mark.parametrize(
    ("entries", "code", "said"),
    [
        ([], "EmptyBatchRequest", "The batch request doesn't contain any entries."),
        (
            [entry(str(number)) for number in range(11)],
            "TooManyEntriesInBatchRequest",
            "The batch request contains more entries than permissible.",
        ),
        (
            [entry("1"), entry("1")],
            "BatchEntryIdsNotDistinct",
            "Two or more batch entries in the request have the same Id.",
        ),
        (
            [entry("msg@123#test")],
            "InvalidBatchEntryId",
            "The Id of a batch entry in the batch request contains an impermissible character: msg@123#test",
        ),
        (
            [entry("a" * 81)],
            "InvalidBatchEntryId",
            "The Id of a batch entry in the batch request is too long: " + "a" * 81,
        ),
        (
            [entry("")],
            "InvalidBatchEntryId",
            "The Id of a batch entry in the batch request contains an impermissible character: ",
        ),
        (
            [entry("a", "x" * (128 * 1024)), entry("b", "x" * (128 * 1024 + 1))],
            "BatchRequestTooLong",
            "The length of all the messages put together is more than the limit.",
        ),
    ],
)
def test_a_batch_that_is_none(entries: list[shapes.PublishEntry], code: str, said: str) -> None:
    assert refusal(lambda: checks.check_publish_batch(shapes.PublishBatch(topic_arn=TOPIC, entries=entries))) == (
        code,
        said,
    )


CHECKS: dict[str, tuple[type[shapes.Shape], Callable[[Any], object]]] = {
    "CreateTopic": (shapes.CreateTopic, checks.check_topic),
    "Subscribe": (shapes.Subscribe, checks.check_subscription),
    "Publish": (shapes.Publish, checks.check_publish),
    "PublishBatch": (shapes.PublishBatch, checks.check_publish_batch),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(CHECKS)), st.data())
def test_whatever_comes_is_taken_or_refused(action: str, data: st.DataObject) -> None:
    kind, check = CHECKS[action]
    asked = data.draw(models.values(models.service("sns").operation_model(action).input_shape))
    if "TopicArn" in asked:
        asked["TopicArn"] = data.draw(st.sampled_from([TOPIC, FIFO, asked["TopicArn"]]))
    wish = msgspec.convert(asked, kind)
    with suppress(AwsError):
        check(wish)
