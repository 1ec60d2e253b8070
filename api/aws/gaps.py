"""What clients of SNS may ask for and the cluster's rules cannot do yet. The only place that knows.

Nothing is imitated in a handler: what is missing here is missing in the rules, and is refused until they have it.
"""

from __future__ import annotations

from api.aws.errors import AwsError, sns

SNS_GAPS: dict[str, str] = {
    # Attributes of a topic.
    "ArchivePolicy": "archives of topics",
    "KmsMasterKeyId": "encryption with keys of KMS",
    "Policy": "access policies on topics",
    "SignatureVersion": "signed notifications",
    "TracingConfig": "tracing with X-Ray",
    # Attributes of a subscription.
    "DeliveryPolicy": "other endpoints than queues, which take everything at once",
    "RedrivePolicy": "dead-letter queues of subscriptions; a queue that takes nothing refuses what is published",
    "ReplayPolicy": "archives of topics",
    "SubscriptionRoleArn": "other endpoints than queues",
}
"""What is asked of SNS → what would have to be there."""


def sns_gap(asked: str) -> AwsError:
    """The refusal of an attribute that SNS has."""
    said = f"Invalid parameter: {asked} Reason: it is not supported, it needs {SNS_GAPS[asked]}"
    return sns("InvalidParameterException", said)
