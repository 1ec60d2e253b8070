"""Every reason the rules have to refuse, by the code that `Refused` carries."""

from __future__ import annotations

QUEUE_NOT_FOUND = "queue_not_found"
QUEUE_LIMIT = "queue_limit"
QUEUE_FULL = "queue_full"
"""`limit` is the queue's `messages_max` or `bytes_max`, `detail` says which."""
SETTING_FIXED = "setting_fixed"
"""`detail` names a setting that an existing queue keeps."""
DEAD_LETTER_KIND = "dead_letter_kind"
"""The dead-letter queue is fifo and the queue is not, or the other way round."""
BODY_TOO_LARGE = "body_too_large"
GROUP_REQUIRED = "group_required"
PRIORITY_NOT_ALLOWED = "priority_not_allowed"
"""A queue whose groups decide the order has no priorities."""
CONSUMER_REQUIRED = "consumer_required"
MESSAGE_NOT_FOUND = "message_not_found"
MESSAGE_LEASED = "message_leased"
STALE_RECEIPT = "stale_receipt"
MALFORMED = "malformed"
STALE_OPERATION = "stale_operation"
IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
IDEMPOTENCY_WINDOW_FULL = "idempotency_window_full"

CODES = frozenset(value for name, value in globals().items() if name.isupper())
