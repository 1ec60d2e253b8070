"""Two protocols, one set of shapes: how a request is read and answered in the one it speaks.

    JSON 1.0   POST at any path, X-Amz-Target: AmazonSQS.SendMessage, the request as the body
    query      form POST or GET at any path, Action=SendMessage among the parameters; answered in XML

Every answer names its request in `x-amzn-RequestId`. JSON errors also carry their older code in `x-amzn-query-error`,
which is what clients made for the query protocol compare: see `api.aws.errors`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import msgspec

from api.aws import errors, query, sns_shapes, sqs_shapes
from api.aws.errors import AwsError, common
from api.aws.shapes import Shape

JSON_TYPE, XML_TYPE = "application/x-amz-json-1.0", "text/xml"
_TARGET = "AmazonSQS."
_SAID_BACK_MAX = 100
"""Characters of a client's own words that an answer repeats."""
_ABSENT = re.compile(r"Object missing required field `(\w+)`|got `null` - at `\$.*?(\w+)`$")


class Service(NamedTuple):
    """One of AWS's services. `missing` makes the refusal of a request that lacks a parameter."""

    name: str
    version: str
    namespace: str
    shapes: dict[str, tuple[type[Shape], type[Shape] | None]]
    missing: Callable[[str], AwsError]


def _missing_in_sqs(parameter: str) -> AwsError:
    return errors.sqs("MissingRequiredParameterException", f"The request must contain the parameter {parameter}.")


def _missing_in_sns(parameter: str) -> AwsError:
    named = f"'{parameter[0].lower()}{parameter[1:]}'"
    said = f"1 validation error detected: Value null at {named} failed to satisfy constraint: Member must not be null"
    return errors.sns("ValidationError", said)


SQS = Service("sqs", "2012-11-05", "http://queue.amazonaws.com/doc/2012-11-05/", sqs_shapes.SHAPES, _missing_in_sqs)
SNS = Service("sns", "2010-03-31", "http://sns.amazonaws.com/doc/2010-03-31/", sns_shapes.SHAPES, _missing_in_sns)


class Rendered(NamedTuple):
    """An answer as it leaves."""

    status: int
    headers: dict[str, str]
    body: bytes


class Dialect(NamedTuple):
    """A service, and the protocol in which it is spoken to."""

    service: Service
    is_json: bool

    def known(self, action: str) -> str:
        """The action, if the service has it. Raises `AwsError`."""
        if action in self.service.shapes:
            return action
        told = action[:_SAID_BACK_MAX]
        if self.is_json:
            raise common("UnknownOperationException", f"The operation {told} is not known.")
        if not action:
            raise common("MissingActionException", "The request must contain the parameter Action.")
        raise common("InvalidActionException", f"The action {told} is not valid for this endpoint.")

    def read(self, action: str, content: bytes | dict[str, str]) -> Shape:
        """The request that a body of JSON, or parameters, are. Raises `AwsError`."""
        kind = self.service.shapes[action][0]
        try:
            if isinstance(content, bytes):
                return _decoder(kind).decode(content or b"{}")
            return query.parse(content, kind)
        except msgspec.ValidationError as error:
            absent = _ABSENT.search(str(error))
            if absent is not None:
                raise self.service.missing(absent[1] or absent[2]) from None
            raise common("SerializationException", f"{error}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise common("SerializationException", "The body is not JSON in UTF-8.") from None

    def answer(self, action: str, shape: Shape | None, request_id: str) -> Rendered:
        """What is said when an action succeeded. As with AWS, JSON is an empty body where there is nothing to say."""
        if self.is_json:
            body = b"" if shape is None else msgspec.json.encode(shape)
            return Rendered(200, _headers(JSON_TYPE, request_id), body)
        body = query.render(action, self.service.namespace, shape, request_id)
        return Rendered(200, _headers(XML_TYPE, request_id), body)

    def refuse(self, error: AwsError, request_id: str) -> Rendered:
        """What is said when it did not."""
        if self.is_json:
            fault = "Sender" if error.is_senders_fault else "Receiver"
            headers = _headers(JSON_TYPE, request_id) | {"x-amzn-query-error": f"{error.code};{fault}"}
            body = msgspec.json.encode({"__type": error.type, "message": error.message})
            return Rendered(error.status, headers, body)
        message = _WSDL.get(error.message, error.message)
        body = query.render_error(self.service.namespace, error, message, request_id)
        return Rendered(error.status, _headers(XML_TYPE, request_id), body)


SQS_JSON, SQS_QUERY, SNS_QUERY = Dialect(SQS, True), Dialect(SQS, False), Dialect(SNS, False)
NO_SUCH_QUEUE = "The specified queue does not exist."
_WSDL = {NO_SUCH_QUEUE: "The specified queue does not exist for this wsdl version."}
"""What AWS words otherwise in the query protocol."""


def targeted(target: str) -> str:
    """The action that an `X-Amz-Target` names. Raises `AwsError`."""
    return SQS_JSON.known(target[len(_TARGET) :] if target.startswith(_TARGET) else target)


def dialect(parameters: dict[str, str]) -> Dialect:
    """Whom the parameters of the query protocol are for: both services have actions of one name, so versions tell."""
    return SNS_QUERY if parameters.get("Version") == SNS.version else SQS_QUERY


def _headers(kind: str, request_id: str) -> dict[str, str]:
    return {"Content-Type": kind, "x-amzn-RequestId": request_id}


@cache
def _decoder(kind: type[Shape]) -> msgspec.json.Decoder[Shape]:
    return msgspec.json.Decoder(kind)
