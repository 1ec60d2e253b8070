"""What clients of SQS and SNS may ask for and the cluster's rules cannot do yet. The only place that knows.

Nothing is imitated in a handler: what is missing here is missing in the rules, and is refused until they have it.
"""

from __future__ import annotations

from api.aws.errors import AwsError, sns, sqs

GAPS: dict[str, str] = {
    # Attributes of a queue, when given another value than the one that every queue has.
    "FifoThroughputLimit": "throughput limits; there are none, for queues or groups",
    "KmsDataKeyReusePeriodSeconds": "encryption with keys of KMS",
    "KmsMasterKeyId": "encryption with keys of KMS",
    "Policy": "access policies on queues",
    "ReceiveMessageWaitTimeSeconds": "long polling by default; give WaitTimeSeconds with each receive",
    "RedriveAllowPolicy": "dead-letter queues that choose their sources",
    "SqsManagedSseEnabled": "encryption at rest",
    "VisibilityTimeout": "a visibility timeout of 0 seconds",
    # Actions.
    "AddPermission": "access policies on queues",
    "ListQueueTags": "tags",
    "RemovePermission": "access policies on queues",
    "TagQueue": "tags",
    "UntagQueue": "tags",
    # Parameters.
    "Tags": "tags",
    # The other service.
    "SNS": "topics and subscriptions",
}
"""What is asked for → what would have to be there."""


def gap(asked: str) -> AwsError:
    """The refusal of what is missing."""
    return sqs("UnsupportedOperation", f"{asked} is not supported yet: it needs {GAPS[asked]}.")


def sns_gap(asked: str) -> AwsError:
    """The refusal of an action of SNS."""
    return sns("InvalidParameterException", f"Invalid parameter: {asked} is not supported yet: it needs {GAPS['SNS']}.")
