"""Messages on their way in and out of SQS: what is refused with which words, and what a receive shows."""

from __future__ import annotations

import base64
import uuid
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.aws.digests import md5_of_body
from api.aws.errors import AwsError
from api.aws.query import render
from api.aws.sqs_messages import chosen, incoming, is_legal, message_uuid, outgoing
from api.aws.sqs_shapes import AttributeValue, Message, ReceiveMessage, SendMessage
from api.aws.sqs_shapes import Received as ReceivedShape
from api.properties import Properties, encode_properties
from storage.block import Part, encode_block, parts


def wish(body: str = "hi", **more: Any) -> SendMessage:
    return SendMessage(queue_url="q", message_body=body, **more)


def value(text: str | bytes, kind: str | None = None) -> AttributeValue:
    if isinstance(text, bytes):
        return AttributeValue(data_type=kind or "Binary", binary_value=text)
    return AttributeValue(data_type=kind or "String", string_value=text)


def refusal(asked: SendMessage) -> tuple[str, str]:
    with pytest.raises(AwsError) as refused:
        outgoing(asked)
    return refused.value.code, refused.value.message


# --- bodies -----------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=6))
@example("\t\n\r")
@example("\x00")
@example("\ufffe")
@example("\uffff")
@example("\ufffd\U00010000\U0010ffff\U0001ffff")
@example("\x7f\x85\xa0")
def test_a_text_is_legal_if_xml_can_carry_it(text: str) -> None:
    legal = all(
        character in "\t\n\r"
        or "\x20" <= character <= "\ud7ff"
        or "\ue000" <= character <= "\ufffd"
        or character > "\uffff"
        for character in text
    )
    assert is_legal(text.encode()) == legal
    if legal:
        message = Message(message_id="", receipt_handle="", md5_of_body="", body=text)
        told = ElementTree.fromstring(render("Receive", "n", ReceivedShape(messages=[message]), "17"))
        assert (told.findtext(".//{n}Body") or "") == text


def test_a_body_is_kept_as_it_is() -> None:
    sent = outgoing(wish("wörld"))
    assert sent == ("wörld".encode(), b"", 6, md5_of_body("wörld".encode()), None, None)


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (wish(""), "MissingParameter", "The request must contain the parameter MessageBody."),
        (
            wish("a\x00"),
            "InvalidMessageContents",
            "Invalid characters found. Valid unicode characters are "
            "#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF",
        ),
        (
            wish("ü" * (512 * 1024) + "x"),
            "InvalidParameterValue",
            "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.",
        ),
        (
            wish("x" * (1024 * 1024 - 9), message_attributes={"ab": value("cd")}),
            "InvalidParameterValue",
            "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.",
        ),
    ],
)
def test_what_is_no_message_is_refused(asked: SendMessage, code: str, said: str) -> None:
    assert refusal(asked) == (code, said)


def test_the_largest_message_counts_names_types_and_values_of_attributes() -> None:
    largest = wish("x" * (1024 * 1024 - 10), message_attributes={"ab": value("cd")})
    assert outgoing(largest).size == 1024 * 1024


# --- attributes -------------------------------------------------------------------------------------------------------

RESERVED = "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. "


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"": value("a")}, "The request must contain non-empty message (user) attribute names."),
        ({"a" * 257: value("a")}, "Message (user) attribute names must be shorter than 256 Bytes"),
        *(({name: value("a")}, "can only contain upper and lower score") for name in ("a b", "a/b", "a\n", "名")),
        *(({name: value("a")}, RESERVED) for name in ("AWS.a", "aws.a", "Amazon.", "amazon.x", ".a", "a.", "a..b")),
        ({f"a{number}": value("a") for number in range(11)}, "Number of message attributes [11] exceeds the allowed"),
        ({"a": value("")}, "Message (user) attribute 'a' must contain a non-empty value of type 'String'."),
        ({"a": value("", "Number")}, "Message (user) attribute 'a' must contain a non-empty value of type 'Number'."),
        ({"a": value(b"")}, "Message (user) attribute 'a' must contain a non-empty value of type 'Binary'."),
        ({"a": value("x", "Binary")}, "The message (user) attribute 'a' with type 'Binary' must use field 'Binary'."),
        (
            {"a": value(b"x", "Number.x")},
            "The message (user) attribute 'a' with type 'Number' must use field 'String'.",
        ),
        ({"a": value("x", "Number")}, "Can't cast the value of message (user) attribute 'a' to a number."),
        ({"a": value("\x00")}, "Invalid characters found."),
        ({"a": AttributeValue(data_type="", string_value="a")}, "must contain a non-empty message attribute type."),
        *(
            (
                {"a": AttributeValue(data_type=kind, string_value="a")},
                "The type of message (user) attribute 'a' is invalid.",
            )
            for kind in ("string", "Text", "Stringy", "String.", "String.a b", "String.\x00", " String")
        ),
        ({"a": value("a", "String." + "x" * 250)}, "Message (user) attribute types must be shorter than 256 Bytes"),
        ({"a": AttributeValue(data_type="String", string_list_values=["a"])}, "list values in SendMessage"),
    ],
)
def test_what_is_no_attribute_is_refused(attributes: dict[str, AttributeValue], said: str) -> None:
    assert (
        refusal(wish(message_attributes=attributes))[1].startswith(said)
        or said in refusal(wish(message_attributes=attributes))[1]
    )


def test_names_and_types_that_are_just_right_are_taken() -> None:
    attributes = {
        "a" * 256: value("a"),
        "awsome": value("a"),
        "a.b-c_D.9": value("1.5", "Number.float"),
        "Ünïcode": value("\t\r\n"),
        "b": value(b"\x00", "Binary.png"),
        **{f"x{number}": value("a", "String." + "y" * 249) for number in range(5)},
    }
    assert len(attributes) == 10
    assert outgoing(wish(message_attributes=attributes)).md5_of_attributes is not None


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ({"SenderId": value("me")}, "Message system attribute name 'SenderId' is invalid."),
        ({"AWSTraceHeader": value(b"x")}, "The type of message system attribute 'AWSTraceHeader' must be 'String'."),
        ({"AWSTraceHeader": value("")}, "must contain a non-empty value"),
    ],
)
def test_system_attributes_are_one(system: dict[str, AttributeValue], said: str) -> None:
    assert said in refusal(wish(message_system_attributes=system))[1]


# --- receiving --------------------------------------------------------------------------------------------------------


def part(sent: tuple[bytes, bytes]) -> Part:
    return next(parts(encode_block([sent]), 1))


def received(asked: SendMessage | tuple[bytes, bytes], trace: str | None = None, **choice: Any) -> Message:
    kept = outgoing(asked, trace)[:2] if isinstance(asked, SendMessage) else asked
    system = {"SentTimestamp": "1", "ApproximateReceiveCount": "2"}
    return incoming(part(kept), "m", "r", system, chosen(ReceiveMessage(queue_url="q", **choice)))


def test_nothing_is_shown_that_was_not_asked_for() -> None:
    asked = wish(message_attributes={"a": value("b")}, message_system_attributes={"AWSTraceHeader": value("Root=1")})
    shown = received(asked)
    assert shown == Message(message_id="m", receipt_handle="r", md5_of_body=md5_of_body(b"hi"), body="hi")
    assert received(asked, message_attribute_names=["b", "AWS.", "..a", "A"], attribute_names=["Policy", ""]) == shown


@pytest.mark.parametrize(
    ("names", "expected", "digest"),
    [  # answers of AWS
        (["All"], {"General", "Hello", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"),
        (["ALL"], {"General", "Hello", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"),
        (["*"], {"General", "Hello", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"),
        ([".*"], {"General", "Hello", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"),
        (["Hello", "General"], {"General", "Hello"}, "fca026605781cb4126a1e9044df24232"),
        (["Foo", "Hello"], {"Hello"}, "a311262e065454b75da111d535b8dacd"),
        (["Hel.*"], {"Hello", "Help.Me"}, "83fee93c1bcd8b9a5a923ffacdc636c7"),
    ],
)
def test_attributes_are_chosen_and_their_digest_is_of_the_chosen(
    names: list[str], expected: set[str], digest: str
) -> None:
    attributes = {"General": value("Kenobi"), "Hello": value("There"), "Help.Me": value("Me")}
    shown = received(wish(message_attributes=attributes), message_attribute_names=names)
    assert shown.message_attributes is not None
    assert set(shown.message_attributes) == expected
    assert shown.md5_of_attributes == digest


@pytest.mark.parametrize("member", ["attribute_names", "message_system_attribute_names"])
def test_system_attributes_are_chosen_by_either_list(member: str) -> None:
    asked = wish(message_system_attributes={"AWSTraceHeader": value("Root=1")})
    everything = {
        "SentTimestamp": "1",
        "ApproximateReceiveCount": "2",
        "AWSTraceHeader": "Root=1",
    }
    assert received(asked, **{member: ["All"]}).attributes == everything
    assert received(asked, **{member: ["ALL"]}).attributes == everything
    assert received(asked, **{member: ["SentTimestamp", "AWSTraceHeader"]}).attributes == {
        "SentTimestamp": "1",
        "AWSTraceHeader": "Root=1",
    }


def test_the_trace_of_a_request_is_the_messages_unless_it_has_its_own() -> None:
    own = wish(message_system_attributes={"AWSTraceHeader": value("Root=1")})
    assert received(wish(), "Root=2", attribute_names=["AWSTraceHeader"]).attributes == {"AWSTraceHeader": "Root=2"}
    assert received(own, "Root=2", attribute_names=["AWSTraceHeader"]).attributes == {"AWSTraceHeader": "Root=1"}
    assert outgoing(wish(), "Root=2").md5_of_system_attributes is None
    assert outgoing(own).md5_of_system_attributes is not None


@pytest.mark.parametrize(
    ("body", "binary"),
    [(b"\xff\x00", True), (b"text", True), (b"", True), (b"a\x00b", False), ("\ufffe".encode(), False)],
)
def test_what_sqs_cannot_carry_comes_as_base64_and_says_so(body: bytes, binary: bool) -> None:
    kept = (body, encode_properties(Properties(binary, {"a": 1})))
    shown = received(kept, message_attribute_names=["All"])
    assert base64.b64decode(shown.body) == body
    assert shown.md5_of_body == md5_of_body(shown.body.encode())
    assert shown.message_attributes == {"body_encoding": value("base64"), "a": value("1", "Number")}
    own = (body, encode_properties(Properties(binary, {"body_encoding": "mine"})))
    assert received(own, message_attribute_names=["All"]).message_attributes == {"body_encoding": value("mine")}


def test_a_message_of_another_api_is_shown_with_types() -> None:
    kept = (b"hi", encode_properties(Properties(False, {"s": "a", "n": 1.5, "b": True, "empty": "", "odd name": 1})))
    shown = received(kept, message_attribute_names=["All"])
    assert shown.message_attributes == {
        "s": value("a"),
        "n": value("1.5", "Number"),
        "b": value("true"),
        "empty": value(""),
        "odd name": value("1", "Number"),
    }


@given(st.integers(1, 2**62 - 1), st.integers(0, 2**48 - 1))
def test_ids_are_uuids_that_tell_messages_apart(message_id: int, sent_ms: int) -> None:
    first = message_uuid("a", message_id, sent_ms)
    assert str(uuid.UUID(first)) == first
    assert (uuid.UUID(first).version, uuid.UUID(first).variant) == (4, uuid.RFC_4122)
    others = {message_uuid("b", message_id, sent_ms), message_uuid("a", message_id - 1, sent_ms)}
    assert first not in others | {message_uuid("a", message_id, sent_ms ^ 1)}
