"""Messages between SQS and the cluster: checked and encoded when sent, chosen from and described when received."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from api.aws import sqs_shapes as shapes
from api.aws.attributes import is_number, keep, show
from api.aws.calls import invalid, missing, too_long
from api.aws.digests import Attribute, md5_of_attributes, md5_of_body
from api.aws.errors import sqs
from api.properties import NONE, TYPE, TYPE_CHARACTERS_MAX, Properties, decode_properties, encode_properties
from storage.block import Part

MESSAGE_BYTES_MAX = 1024 * 1024
"""Bytes of a message with its attributes, and of a whole batch: SQS's own limit since 2025."""
ATTRIBUTES_MAX = 10
ATTRIBUTE_NAME_MAX = 256
NAMES_MAX = 1000
"""Attributes a receive may ask for by name: every attribute received may be held against each."""
BODY_ENCODING = "body_encoding"
"""The attribute that says `base64` of a body that SQS cannot carry as it is: bytes, or text with control characters."""

_LEGAL_BYTES = bytes({*range(256)} - {*range(0x20)} | {0x09, 0x0A, 0x0D})
_FFFE, _FFFF = b"\xef\xbf\xbe", b"\xef\xbf\xbf"
"""U+FFFE and U+FFFF, the only characters beyond the control characters that XML does not have."""
_ILLEGAL = (
    "Invalid characters found. Valid unicode characters are "
    "#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF"
)
_NAME = re.compile(r"[A-Za-z0-9_.\-\u00c0-\u017f]+")
_RESERVED = re.compile(r"(aws\.|amazon\.|\.)|.*\.$|.*\.\.", re.IGNORECASE | re.DOTALL)
_FIFO_ID = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}", re.ASCII)
_TRACE = "AWSTraceHeader"


def is_legal(encoded: bytes | memoryview) -> bool:
    """Whether UTF-8 text has only characters that XML 1.0 has."""
    data = bytes(encoded)
    if data.translate(None, _LEGAL_BYTES):
        return False
    return data.isascii() or (_FFFE not in data and _FFFF not in data)


# --- sending ----------------------------------------------------------------------------------------------------------


class Outgoing(NamedTuple):
    """A message ready to be kept. `size` is what SQS counts of it: body, and names, types and values of attributes."""

    body: bytes
    properties: bytes
    size: int
    md5_of_body: str
    md5_of_attributes: str | None = None
    md5_of_system_attributes: str | None = None


def outgoing(wish: shapes.Sendable, trace: str | None = None) -> Outgoing:
    """Check and encode a message. `trace` is the request's own trace header. Raises `AwsError`."""
    body = wish.message_body.encode()
    if not body:
        raise missing("MessageBody")
    if not is_legal(body):
        raise sqs("InvalidMessageContents", _ILLEGAL)
    if not (wish.message_attributes or wish.message_system_attributes or trace):
        return _of_size(Outgoing(body, b"", len(body), md5_of_body(body)))

    attributes = _attributes(wish.message_attributes or {})
    system = _system_attributes(wish.message_system_attributes or {})
    values, types = keep(attributes)
    told = {name: str(attribute.value) for name, attribute in system.items()}
    if trace is not None:
        told.setdefault(_TRACE, trace)
    return _of_size(
        Outgoing(
            body,
            encode_properties(Properties(False, values, types, told)),
            size_of(wish),
            md5_of_body(body),
            md5_of_attributes(attributes),
            md5_of_attributes(system),
        )
    )


def size_of(wish: shapes.Sendable) -> int:
    """The bytes that SQS counts of a message, which need not be a valid one."""
    texts = [wish.message_body]
    binary_bytes = 0
    for name, value in (wish.message_attributes or {}).items():
        texts += (name, value.data_type, value.string_value or "")
        binary_bytes += len(value.binary_value or b"")
    return binary_bytes + sum(len(text) if text.isascii() else len(text.encode()) for text in texts)


def _of_size(message: Outgoing) -> Outgoing:
    if message.size > MESSAGE_BYTES_MAX:
        raise too_long(MESSAGE_BYTES_MAX)
    return message


def _attributes(given: Mapping[str, shapes.AttributeValue]) -> dict[str, Attribute]:
    if len(given) > ATTRIBUTES_MAX:
        raise invalid(f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{ATTRIBUTES_MAX}].")
    for name in given:
        _check_name(name)
    return {name: _attribute(name, value) for name, value in given.items()}


def _check_name(name: str) -> None:
    if not name:
        raise invalid("The request must contain non-empty message (user) attribute names.")
    if len(name) > ATTRIBUTE_NAME_MAX:
        raise invalid("Message (user) attribute names must be shorter than 256 Bytes")
    if not _NAME.fullmatch(name):
        raise invalid(
            "Message (user) attributes name can only contain upper and lower score characters, digits, periods, "
            "hyphens and underscores. "
        )
    if _RESERVED.match(name):
        raise invalid(
            "You can't use message attribute names beginning with 'AWS.' or 'Amazon.'. These strings are reserved for "
            "internal use. Additionally, they cannot start or end with '.'."
        )


def _attribute(name: str, given: shapes.AttributeValue) -> Attribute:
    kind, _, _ = given.data_type.partition(".")
    if not given.data_type:
        raise invalid(f"The message (user) attribute '{name}' must contain a non-empty message attribute type.")
    if len(given.data_type) > TYPE_CHARACTERS_MAX:
        raise invalid("Message (user) attribute types must be shorter than 256 Bytes")
    if not TYPE.fullmatch(given.data_type):
        raise invalid(
            f"The type of message (user) attribute '{name}' is invalid. You must use only the following supported type "
            "prefixes: Binary, Number, String."
        )
    if given.string_list_values or given.binary_list_values:
        raise sqs("UnsupportedOperation", "Message attribute list values in SendMessage operation are not supported.")
    value = given.binary_value if kind == "Binary" else given.string_value
    other = given.string_value if kind == "Binary" else given.binary_value
    if not value and other:
        field = "Binary" if kind == "Binary" else "String"
        raise invalid(f"The message (user) attribute '{name}' with type '{kind}' must use field '{field}'.")
    if not value:
        raise invalid(f"Message (user) attribute '{name}' must contain a non-empty value of type '{kind}'.")
    if isinstance(value, str) and not is_legal(value.encode()):
        raise invalid(_ILLEGAL)
    if kind == "Number" and not is_number(str(value)):
        raise invalid(f"Can't cast the value of message (user) attribute '{name}' to a number.")
    return Attribute(given.data_type, value)


def _system_attributes(given: Mapping[str, shapes.AttributeValue]) -> dict[str, Attribute]:
    for name, value in given.items():
        if name != _TRACE:
            raise invalid(f"Message system attribute name '{name[:ATTRIBUTE_NAME_MAX]}' is invalid.")
        if value.data_type != "String":
            raise invalid(f"The type of message system attribute '{name}' must be 'String'.")
    return {name: _attribute(name, value) for name, value in given.items()}


def check_fifo_id(name: str, text: str | None) -> None:
    """Check an id that FIFO queues know. Raises `AwsError`."""
    if text is not None and not _FIFO_ID.fullmatch(text):
        raise invalid(
            f"Value {text[:200]} for parameter {name} is invalid. Reason: {name} can only include alphanumeric and "
            "punctuation characters. 1 to 128 in length."
        )


# --- receiving --------------------------------------------------------------------------------------------------------


class Chosen(NamedTuple):
    """Which attributes a receive asks for: SQS's own, and the sender's by name or by what their names begin with."""

    system: frozenset[str]
    all_of_system: bool
    names: frozenset[str]
    prefixes: tuple[str, ...]

    def of_system(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """Those of SQS's own attributes that were asked for."""
        if self.all_of_system:
            return dict(attributes)
        return {name: value for name, value in attributes.items() if name in self.system}

    def of_sender(self, attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
        """Those of the sender's attributes that were asked for."""
        return {
            name: value
            for name, value in attributes.items()
            if name in self.names or (self.prefixes and name.startswith(self.prefixes))
        }


def chosen(wish: shapes.ReceiveMessage) -> Chosen:
    """What a receive asks for. Unknown names are passed over, as SQS does. Raises `AwsError`."""
    names = wish.message_attribute_names or []
    if len(names) > NAMES_MAX:
        raise invalid(f"Number of MessageAttributeNames [{len(names)}] exceeds the allowed maximum [{NAMES_MAX}].")
    system = {*(wish.attribute_names or ()), *(wish.message_system_attribute_names or ())}
    everything = any(name.lower() in ("all", "*") for name in names)
    prefixes = [""] if everything else [name[:-2] for name in names if name.endswith(".*")]
    return Chosen(frozenset(system), any(name.lower() == "all" for name in system), frozenset(names), tuple(prefixes))


def incoming(
    part: Part, message_id: str, receipt_handle: str, system: Mapping[str, str], choice: Chosen
) -> shapes.Message:
    """A message as its consumer sees it. `system` is what the cluster knows of it."""
    body, properties = _body(part)
    message = shapes.Message(
        message_id=message_id, receipt_handle=receipt_handle, md5_of_body=md5_of_body(body), body=body.decode()
    )
    if properties.attributes and (choice.names or choice.prefixes):
        picked = choice.of_sender(show(properties.attributes, properties.types))
        if picked:
            picked = {name: _carried(attribute) for name, attribute in picked.items()}
            message.md5_of_attributes = md5_of_attributes(picked)
            message.message_attributes = {name: _value(attribute) for name, attribute in picked.items()}
    if choice.system:
        message.attributes = choice.of_system({**system, **properties.system}) or None
    return message


def _body(part: Part) -> tuple[bytes, Properties]:
    """The body as SQS can carry it, and the properties, with a word about the body if it is encoded."""
    properties = decode_properties(part.properties) if part.body_bytes != len(part.data) else NONE
    body = bytes(part.body)
    if not properties.binary and is_legal(body):
        return body, properties
    attributes = {BODY_ENCODING: "base64"} | properties.attributes
    told = Properties(properties.binary, attributes, properties.types, properties.system)
    return base64.b64encode(body), told


def _carried(attribute: Attribute) -> Attribute:
    """The attribute, as bytes if its text has characters that SQS cannot carry: other APIs can send them."""
    kind, value = attribute
    if isinstance(value, bytes) or is_legal(encoded := value.encode()):
        return attribute
    return Attribute(kind.replace("String", "Binary", 1), encoded)


def _value(attribute: Attribute) -> shapes.AttributeValue:
    kind, value = attribute
    if isinstance(value, bytes):
        return shapes.AttributeValue(data_type=kind, binary_value=value)
    return shapes.AttributeValue(data_type=kind, string_value=value)


def message_uuid(queue: str, message_id: int, sent_ms: int) -> str:
    """A message's id in SQS, where clients want UUIDs: made of when, where, and as what it was sent."""
    digits = f"{sent_ms & (1 << 48) - 1:012x}4{_where(queue):03x}{1 << 63 | message_id:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@lru_cache(maxsize=1024)
def _where(queue: str) -> int:
    return int.from_bytes(hashlib.blake2b(queue.encode(), digest_size=2).digest()) & 0xFFF
