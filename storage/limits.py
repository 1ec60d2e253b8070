"""Limits that every replica must agree on, each with its reason. A change here is a change of the replicated rules."""

from __future__ import annotations

BATCH_MESSAGES_MAX = 1000
"""Messages in one send, receive or ack: bounds the work of one operation, so that no tick is long."""

HOLD_MS_MAX = 10 * 366 * 24 * 60 * 60 * 1000
"""The longest lease or delay the rules take: ten years, so that no due time leaves its eight bytes."""

ID_END = 2**63
"""Message ids and lease tokens are below it: they fit a signed 64-bit integer everywhere."""

ENTRY_BYTES_MAX = 16 * 1024 * 1024
"""Bytes the leader puts into one log entry, one oversized operation excepted: bounds a frame and an fsync."""

OPERATION_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of one operation with its bodies: what one HTTP request may carry after decoding."""

RECEIVE_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of bodies one receive or one page of browsing returns, one message excepted: bounds an answer."""

MERGED_MESSAGES_MAX = 256
"""Messages that sends of one entry may gather in one chunk: more would make a chunk's record costly to rewrite."""

ENTRY_RECEIVE_BYTES_MAX = 2 * RECEIVE_BYTES_MAX
"""Bytes of bodies that the receives of one entry return together: one beyond it finds nothing, and tries again in the
next entry. Bounds what a tick reads and holds."""

SESSION_WINDOW_MS = 10 * 60 * 1000
"""How long the outcomes of a silent gateway are remembered. A gateway gives up a request long before."""

KEY_WINDOW_MS = 10 * 60 * 1000
"""How long an `Idempotency-Key` is remembered after its operation took effect."""

KEYS_MAX = 1_000_000
"""Idempotency keys remembered at a time; beyond it an operation with a key is refused rather than half-protected."""

QUEUES_MAX = 10_000
"""Queues of one shard."""

PULSE_STEPS_MAX = 500
"""Steps of one pulse: bounds the work of one entry, so that a million due leases never stall a tick."""

FILTER_BYTES_MAX = 64 * 1024
"""Bytes of a filter's JSON: every replica keeps it, compiled too, for every subscription."""

FILTER_KEYS_MAX = 32
"""Keys of one filter, on all levels and in all alternatives: each is looked up in each message."""

FILTER_COMBINATIONS_MAX = 150
"""Combinations of one filter's conditions, counted as SNS does: what a filter can ask of one message."""

FILTER_NESTING_MAX = 8
"""Objects within objects in a filter, the alternatives of `$or` among them."""

FILTER_TEXT_CHARACTERS_MAX = 1024
"""Characters of a key, a value or a pattern in a filter: filters compare labels, not documents."""

FILTER_NUMBER_CHARACTERS_MAX = 64
"""Characters of a number in a filter: no measurement and no id needs more."""

FILTER_STARS_MAX = 32
"""Stars of all wildcards in one filter: for each, a match may have to read the whole of a long value."""

FILTER_BODY_BYTES_MAX = 256 * 1024
"""Bytes of a body that filters read, as SNS: parsing more would hold up everything else. A larger one never matches."""

FILTER_BODY_NESTING_MAX = 64
"""Objects and arrays within each other in a body that filters read: well inside what every JSON parser takes."""

FILTER_BODY_DIGITS_MAX = 640
"""Digits in a row of a number in a body that filters read: what every Python reads, however it is set up."""

FILTER_STEPS_MAX = 100_000
"""Elements of arrays, times the conditions put to each, that one filter looks at in one message: some milliseconds."""

SELECTORS_MAX = 16
"""Filters with which the consumers of one queue ask at a time: each is put to every message of the queue."""

SELECTOR_BYTES_MAX = 8 * 1024
"""Bytes of a filter that consumers ask with: every request brings it along, and every replica keeps it."""

SELECTOR_WINDOW_MS = 10 * 60 * 1000
"""How long a filter is remembered that nobody asks with: much longer than a consumer waits or restarts."""

SIFT_MESSAGES_MAX = 1000
"""Messages that are matched in one tick of the leader: some milliseconds with a few filters."""

SIFT_BYTES_MAX = 1024 * 1024
"""Bytes of messages that are read for that, one message excepted."""

SIFT_BODY_BYTES_MAX = 64 * 1024
"""Bytes of a body that consumers' filters read: the leader reads it between everything else. A larger one matches no
filter of bodies."""

TAKEABLE_CHUNKS_MAX = 8
"""Chunks that are looked at for how many consumers with a filter may be woken at once."""

ROUTING_CHARACTERS_MAX = 255
"""Characters of a routing key and of a pattern for it, as in AMQP."""

ROUTING_WORDS_MAX = 32
"""Words of a routing key and of a pattern for it: each word of a key may meet each of a pattern."""

TOPICS_MAX = 10_000
"""Topics of one shard."""

LABELS_BYTES_MAX = 32 * 1024
"""Bytes of a topic's labels, names and texts: 50 tags of SNS at their longest, which most topics are far from."""

SUBSCRIPTIONS_MAX = 1000
"""Subscriptions of one topic: each may be asked about each of its messages."""

PUBLISH_COPIES_MAX = 10_000
"""Messages of one publish, once for each queue they go to: bounds the work of one operation."""

ROUTES_MS = 24 * 60 * 60 * 1000
"""How long it is remembered where a message of a topic was routed to."""

ROUTES_MAX = 100_000
"""Publishes remembered of one topic; beyond it the oldest are forgotten sooner."""

PRIORITY_MAX = 9
"""The highest priority; as many levels as people can tell apart."""

GROUP_BYTES_MAX = 128
"""Bytes of a group's name: as SQS has it."""

KEY_BYTES_MAX = 200
"""Bytes of a producer's own key of a message: it is part of a record's key."""

DEDUP_BYTES_MAX = 128
"""Bytes of a dedup id: as SQS has it."""

CONSUMER_BYTES_MAX = 128
"""Bytes of a consumer's or producer's name: it is kept with every lease."""

PARTIES_MAX = 10_000
"""Registered producers and consumers of one shard."""

PARTY_TEXT_BYTES_MAX = 256
"""Bytes of the name, and of the type, of a producer or consumer."""

PARTY_SEEN_STEP_MS = 60 * 1000
"""How exactly it is noted when a producer or consumer was last seen: each note is a write."""

REASON_BYTES_MAX = 1024
"""Bytes of a nack's reason: it is kept with every message given up for it."""

PROPERTIES_BYTES_MAX = 64 * 1024
"""Bytes of the properties that take the place of a message's own: they lie in a record, not in the log."""

EVENTS_MAX = 64
"""Events remembered of one chunk."""

GIVE_WAY_STEPS_MAX = 1000
"""Chunks that a send to a full queue looks through for messages that may give way: bounds its work."""

WAIT_MS_MAX = 20_000
"""How long a receive may wait for messages: long polls end before proxies end them."""

TAGS_MAX = 50
"""Tags of a queue: as SQS has it."""

LABELS_BYTES_MAX = 12 * 1024
"""Bytes of a queue's tags, and of its attributes for SQS, names and values: a thousand queues fit into one frame."""

SOURCES_MAX = 100
"""Queues that a dead-letter queue may name as its sources."""

TRANSACTION_STEPS_MAX = 100
"""Steps of one transaction: bounds the work of one operation, and what must be remembered to take it back."""

TRANSACTION_MESSAGES_MAX = BATCH_MESSAGES_MAX
"""Messages that one transaction settles and sends in all: as many as any other operation may touch."""

TIME_END_MS = 221_845_392_000_000
"""Cluster times that can be asked for end with the year 8999: whatever is added to one can still be told as a date."""

REDRIVES_MAX = 20
"""Redrive tasks remembered of a queue, with the one that runs: what somebody may still want to look at or undo."""

REDRIVE_TARGETS_MAX = 100
"""Queues that one redrive task moves to: they stand in its record."""

REDRIVE_LOOK_SEGMENTS_MAX = 200
"""Runs of messages that stand alike which one look at dead letters goes through, in a step or for a reader: some
milliseconds of a tick."""

REDRIVE_LOOK_BYTES_MAX = 1024 * 1024
"""Bytes of messages that filters read in one look, one message excepted."""

REDRIVE_STEP_MS = 100
"""How long a redrive task with a rate gathers what it may move: a step costs an entry of the log."""

SCHEDULE_EVERY_MS_MIN = 1000
"""The shortest interval of a schedule: what is needed more often is a worker's loop."""

SCHEDULE_EVERY_MS_MAX = 366 * 24 * 60 * 60 * 1000
"""The longest interval of a schedule: a year."""

SCHEDULES_MAX = 10_000
"""Schedules of one shard: all of them may be due at once, and the leader computes the next time of each."""

SCHEDULE_MESSAGE_BYTES_MAX = 64 * 1024
"""Bytes of body and properties of a schedule's message: they lie in a record that each time rewrites."""

SCHEDULE_LATE_MS = 60 * 1000
"""A time that comes later than this was missed: longer than any failover, so that one leaves nothing out."""

SCHEDULE_CATCH_UP_MAX = 1000
"""Missed times of a schedule that are sent one after another; of those beyond it only the last one is."""

CRON_CHARACTERS_MAX = 256
"""Characters of a cron expression: every list that makes sense is shorter."""

TIME_ZONE_CHARACTERS_MAX = 64
"""Characters of the name of a time zone: twice as many as any has."""

ACCESS_KEYS_MAX = 1000
"""Access keys of a cluster: every gateway keeps all of them, and asks for all of them when one has changed."""

ACCESS_PATTERNS_MAX = 16
"""Patterns of one access key: each may have to be tried for each request."""

ACCESS_PATTERN_STARS_MAX = 8
"""Stars of one pattern: a name has no more parts that could be told apart."""

ACCESS_NOTE_BYTES_MAX = 128
"""Bytes of what is noted beside an access key: a name, not a document."""

ACCESS_SEALED_BYTES_MAX = 256
"""Bytes of a sealed secret: several times what gateways make."""
