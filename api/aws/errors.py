"""AWS's refusals: every error a client may see, with its names in both protocols and its HTTP status.

JSON answers name an error by its shape (`QueueDoesNotExist`), the query protocol, and with it every client that
compares strings, by an older code (`AWS.SimpleQueueService.NonExistentQueue`). The pairs and the words are those that
AWS was seen to answer (recorded by LocalStack's tests) or that its API reference gives.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LEGACY = "AWS.SimpleQueueService."
_UNSAYABLE = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What neither XML nor, of surrogates, JSON can carry. A header that is not UTF-8 is read as surrogates."""


class _Name(NamedTuple):
    code: str
    status: int = 400


def sayable(text: str) -> str:
    """The text as both protocols can carry it, with U+FFFD for each character that they cannot."""
    return _UNSAYABLE.sub("\ufffd", text)


class AwsError(Exception):
    """A refusal. `shape` is its name in JSON, `code` its name in the query protocol."""

    def __init__(self, shape: str, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.shape, self.code, self.status, self.message = shape, code, status, sayable(message)

    @property
    def type(self) -> str:
        """Its full name in JSON."""
        return ("com.amazonaws.sqs#" if self.shape in SQS else "com.amazon.coral.service#") + self.shape

    @property
    def is_senders_fault(self) -> bool:
        """Whether the client has to change something, so that sending it again does not help."""
        return self.status < 500


COMMON: dict[str, _Name] = {
    "AccessDeniedException": _Name("AccessDenied", 403),
    "IncompleteSignatureException": _Name("IncompleteSignature", 400),
    "InvalidClientTokenIdException": _Name("InvalidClientTokenId", 403),
    "InvalidSignatureException": _Name("SignatureDoesNotMatch", 403),
    "MissingAuthenticationTokenException": _Name("MissingAuthenticationToken", 403),
    "RequestExpiredException": _Name("RequestExpired", 400),
    "InternalFailure": _Name("InternalFailure", 500),
    "InvalidActionException": _Name("InvalidAction", 400),
    "MissingActionException": _Name("MissingAction", 400),
    "SerializationException": _Name("MalformedInput", 400),
    "ServiceUnavailableException": _Name("ServiceUnavailable", 503),
    "UnknownOperationException": _Name("InvalidAction", 400),
    "RequestEntityTooLargeException": _Name("RequestEntityTooLarge", 413),
    "RequestTimeoutException": _Name("RequestTimeout", 408),
}
"""What any service of AWS may answer."""

SQS: dict[str, _Name] = {
    "BatchEntryIdsNotDistinct": _Name(_LEGACY + "BatchEntryIdsNotDistinct"),
    "BatchRequestTooLong": _Name(_LEGACY + "BatchRequestTooLong"),
    "EmptyBatchRequest": _Name(_LEGACY + "EmptyBatchRequest"),
    "InvalidAttributeName": _Name("InvalidAttributeName"),
    "InvalidAttributeValue": _Name("InvalidAttributeValue"),
    "InvalidBatchEntryId": _Name(_LEGACY + "InvalidBatchEntryId"),
    "InvalidMessageContents": _Name("InvalidMessageContents"),
    "InvalidParameterValueException": _Name("InvalidParameterValue"),
    "MessageNotInflight": _Name(_LEGACY + "MessageNotInflight"),
    "MissingRequiredParameterException": _Name("MissingParameter"),
    "OverLimit": _Name("OverLimit", 403),
    "PurgeQueueInProgress": _Name(_LEGACY + "PurgeQueueInProgress", 403),
    "QueueDoesNotExist": _Name(_LEGACY + "NonExistentQueue"),
    "QueueNameExists": _Name("QueueAlreadyExists"),
    "ReceiptHandleIsInvalid": _Name("ReceiptHandleIsInvalid"),
    "RequestThrottled": _Name("RequestThrottled", 403),
    "ResourceNotFoundException": _Name("ResourceNotFoundException", 404),
    "TooManyEntriesInBatchRequest": _Name(_LEGACY + "TooManyEntriesInBatchRequest"),
    "UnsupportedOperation": _Name(_LEGACY + "UnsupportedOperation"),
}
"""What SQS may answer. The two with `Parameter` are in no model of AWS, and are its most frequent answers."""

SNS: dict[str, _Name] = {
    "AuthorizationErrorException": _Name("AuthorizationError", 403),
    "BatchEntryIdsNotDistinctException": _Name("BatchEntryIdsNotDistinct"),
    "BatchRequestTooLongException": _Name("BatchRequestTooLong"),
    "EmptyBatchRequestException": _Name("EmptyBatchRequest"),
    "FilterPolicyLimitExceededException": _Name("FilterPolicyLimitExceeded", 403),
    "InvalidBatchEntryIdException": _Name("InvalidBatchEntryId"),
    "InvalidParameterException": _Name("InvalidParameter"),
    "InvalidParameterValueException": _Name("ParameterValueInvalid"),
    "NotFoundException": _Name("NotFound", 404),
    "ResourceNotFoundException": _Name("ResourceNotFound", 404),
    "SubscriptionLimitExceededException": _Name("SubscriptionLimitExceeded", 403),
    "TagLimitExceededException": _Name("TagLimitExceeded"),
    "ThrottledException": _Name("Throttled", 429),
    "TooManyEntriesInBatchRequestException": _Name("TooManyEntriesInBatchRequest"),
    "TopicLimitExceededException": _Name("TopicLimitExceeded", 403),
    "ValidationError": _Name("ValidationError"),
}
"""What SNS may answer, as its service model has it; the last one it answers all the same."""


def common(shape: str, message: str) -> AwsError:
    """A refusal that every service shares."""
    return AwsError(shape, *COMMON[shape], message)


def sqs(shape: str, message: str) -> AwsError:
    """A refusal of SQS."""
    return AwsError(shape, *SQS[shape], message)


def sns(shape: str, message: str) -> AwsError:
    """A refusal of SNS."""
    return AwsError(shape, *SNS[shape], message)
