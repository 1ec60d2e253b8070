"""AWS's own service models, as botocore brings them along, and what botocore makes of requests and answers with them.

botocore knows SQS in JSON only by now. The names that its query protocol has for members come from the model that
botocore had before; they are put back here, so that botocore's own serializer and parser speak for that protocol too.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import botocore.session
from botocore.awsrequest import HeadersDict
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from hypothesis import strategies as st

_ITEMS = {
    "AWSAccountIdList": "AWSAccountId",
    "ActionNameList": "ActionName",
    "AttributeNameList": "AttributeName",
    "BatchResultErrorEntryList": "BatchResultErrorEntry",
    "BinaryList": "BinaryListValue",
    "ChangeMessageVisibilityBatchRequestEntryList": "ChangeMessageVisibilityBatchRequestEntry",
    "ChangeMessageVisibilityBatchResultEntryList": "ChangeMessageVisibilityBatchResultEntry",
    "DeleteMessageBatchRequestEntryList": "DeleteMessageBatchRequestEntry",
    "DeleteMessageBatchResultEntryList": "DeleteMessageBatchResultEntry",
    "ListMessageMoveTasksResultEntryList": "ListMessageMoveTasksResultEntry",
    "MessageAttributeNameList": "MessageAttributeName",
    "MessageList": "Message",
    "MessageSystemAttributeList": "MessageSystemAttributeName",
    "QueueUrlList": "QueueUrl",
    "SendMessageBatchRequestEntryList": "SendMessageBatchRequestEntry",
    "SendMessageBatchResultEntryList": "SendMessageBatchResultEntry",
    "StringList": "StringListValue",
    "TagKeyList": "TagKey",
}
_ENTRIES = {
    "MessageBodyAttributeMap": ("Name", "Value"),
    "MessageBodySystemAttributeMap": ("Name", "Value"),
    "MessageSystemAttributeMap": ("Name", "Value"),
    "QueueAttributeMap": ("Name", "Value"),
    "TagMap": ("Key", "Value"),
}
_MEMBERS = {
    "QueueAttributeMap": "Attribute",
    "MessageSystemAttributeMap": "Attribute",
    "MessageBodyAttributeMap": "MessageAttribute",
    "MessageBodySystemAttributeMap": "MessageSystemAttribute",
    "TagMap": "Tag",
    "StringList": "StringListValue",
    "BinaryList": "BinaryListValue",
}


@cache
def service(name: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(name)


@cache
def in_query(name: str) -> ServiceModel:
    """The service in the query protocol."""
    if name == "sns":
        return service("sns")
    model = deepcopy(botocore.session.get_session().get_component("data_loader").load_service_model("sqs", "service-2"))
    model["metadata"] |= {"protocol": "query", "protocols": ["query"]}
    shapes = model["shapes"]
    for name_, item in _ITEMS.items():
        shapes[name_]["member"]["locationName"] = item
        shapes[name_]["flattened"] = True
    for name_, (key, value) in _ENTRIES.items():
        shapes[name_]["key"]["locationName"] = key
        shapes[name_]["value"]["locationName"] = value
    for shape in shapes.values():
        for member in shape.get("members", {}).values():
            if member["shape"] in _MEMBERS:
                member["locationName"] = _MEMBERS[member["shape"]]
    for action, operation in model["operations"].items():
        if "output" in operation:
            operation["output"]["resultWrapper"] = f"{action}Result"
    return ServiceModel(model, "sqs")


def serialize(action: OperationModel, asked: dict[str, Any]) -> dict[str, Any]:
    """What botocore would send: `headers` and `body`."""
    protocol = action.service_model.metadata["protocol"]
    return create_serializer(protocol, include_validation=False).serialize_to_request(asked, action)


def parse(action: OperationModel, status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """What botocore gives the caller for an answer."""
    parser = create_parser(action.service_model.metadata["protocol"])
    answer = {"status_code": status, "headers": HeadersDict(headers), "body": body}
    return parser.parse(answer, action.output_shape)


# --- values of a shape ------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]) | st.sampled_from("\t\n\r"), max_size=12)
"""What XML can carry."""


def values(shape: Shape, within: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Any value that the model allows, and as callers of botocore write it."""
    if isinstance(shape, StructureShape):
        members = {name: values(member, (*within, shape.name)) for name, member in shape.members.items()}
        required = {name: members.pop(name) for name in shape.required_members}
        return st.fixed_dictionaries(required, optional=members)
    if isinstance(shape, ListShape):
        return st.lists(values(shape.member, within), max_size=3)
    if isinstance(shape, MapShape):
        keys = st.sampled_from(shape.key.enum) if getattr(shape.key, "enum", None) else TEXT.filter(bool)
        return st.dictionaries(keys, values(shape.value, within), max_size=3)
    match shape.type_name:
        case "string":
            return st.sampled_from(shape.enum) if shape.enum else TEXT
        case "integer":
            return st.integers(-(2**31), 2**31 - 1)
        case "long":
            return st.integers(0, 2**62)
        case "boolean":
            return st.booleans()
        case "blob":
            return st.binary(max_size=12)
    raise AssertionError(shape.type_name)


def without_empty(value: Any) -> Any:
    """Lists and maps with nothing in them are as good as none: the query protocol cannot tell them apart."""
    if isinstance(value, dict):
        kept = {name: without_empty(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each not in ([], {})}
    return [without_empty(each) for each in value] if isinstance(value, list) else value


def complaints(action: OperationModel, answer: dict[str, Any]) -> set[str]:
    """What botocore's validator has to say of an answer: members that are unknown, missing, or of another type."""
    report = ParamValidator().validate(answer, action.output_shape)
    return {line for line in report.generate_report().splitlines() if line and not line.startswith("Invalid length")}
