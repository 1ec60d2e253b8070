"""Names, attributes and tags of queues as SQS checks them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.aws import names, sqs_queues
from api.aws.errors import AwsError
from api.aws.sqs_queues import check_attributes, check_name, check_tags

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
