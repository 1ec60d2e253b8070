"""The map of a shard's state: every key and every record, in prose. Keys are big-endian, so that order is meaning.

    m                    Shard      what belongs to no queue: the clock, the next queue number, counts
    q NAME               number     the name of a queue → its number (u32)
    n NUMBER             Queue      a queue: settings, counts, the next message id
    c NUMBER CHUNK       Chunk      messages of one queue that came in one log entry, and where each stands
    r NUMBER RANK CHUNK  -          what may be received; the first such key is received next (below)
    g NUMBER GROUP CHUNK -          chunks of a group, in order (below)
    h NUMBER GROUP       Group      a group that has messages: how many are in flight, where its mark is
    i NUMBER KEY ID      -          the producer's own key → a message
    u NUMBER DEDUP       Dedup      a dedup id → the message that had it
    v NUMBER DUE ID DEDUP -         the same in order of age
    y NUMBER CHUNK       History    what happened to messages of a chunk
    j NAME               Schedule   a schedule: its plan, and what came of it
    a DUE NAME           -          an alarm: at DUE (cluster milliseconds) the leader has a schedule's time come
    z NUMBER TASK        Redrive    a task that moves dead letters of a queue
    Z DUE NUMBER TASK    -          such a task may take its next step at DUE: the leader proposes it, no pulse
    t NAME               Topic      a topic: its number, counts, the next id of a message published to it
    b NUMBER NAME        Subscription   which of a topic's messages go to which queue
    l NUMBER ID          Routes     where the messages of one publish, from ID on, were routed to
    p KIND ID            Party      a registered producer (KIND p) or consumer (KIND c)
    w NUMBER DIGEST      u32        the digest of a filter that consumers of a queue have asked with → its selector
    x NUMBER SELECTOR    Sieve      that filter
    f NUMBER SELECTOR RANK CHUNK -  what may be received through the selector; the first such key is received next
    F NUMBER CHUNK       u64        the chunk is to be sifted, since this log entry; CHUNK 0: a selector is behind
    d DUE KIND SUBJECT   -          a timer: at DUE (cluster milliseconds) the pulse does something (below)
    e INDEX              u32        how many chunks have their bodies in the log entry INDEX
    s SESSION            Session    a gateway's run: up to where it has its answers, when it was last heard
    o SESSION SEQ        [bytes]    outcomes of the session's operations SEQ, SEQ + 1, …
    k KEY                KeyMemory  the outcome of the operation a client named KEY
    A                    Access     the access keys as a whole: how many, and when that last changed
    A ID                 AccessKey  an access key, by its id
    M                    -          the members of the cluster: the engine's, not the rules' (`cluster.membership`)

A *chunk* is named by the id of its first message: message `id` lies in the chunk with the greatest name ≤ `id`, at
position `id - name`. Its *segments* say where its messages stand; a position in no segment is gone (acked or expired).
Messages of a chunk share their `extras`: group, priority, key and so on; most have none. `blocks` name runs of messages
in blocks of the log, so that a moved message, or one that went to many queues, is not written again.

RANK is what comes first: 9 - priority, or a time if priorities age, or the turn of a fair group. A chunk of its own has
a mark of its own while it has ready messages. Of a group at most one chunk is marked: its first, while the group may be
served. In a fifo queue `g` has every chunk with messages that are not dead, else those with ready ones.

A *selector* is a filter that consumers of a queue have asked with lately. The queue's messages are *sifted* for it:
the leader finds out which of them match, and has that written into their chunk (`storage.sifting`).

Topics and selectors are numbered with the queues. A queue's number changes when it is purged, so that purging is
instant; what the old number held is cleaned by pulses.

Timers by kind:
    C NUMBER CHUNK   leases or delays end in this chunk
    D NUMBER         forget dedup ids that are out of their window
    F NUMBER GROUP   the group's rate lets it be served again
    G NUMBER         remove what is left of a purged or deleted queue
    H NUMBER CHUNK   forget the history of messages that have gone
    K KEY            forget an idempotency key
    M NUMBER GROUP   look at every group from GROUP on: the queue's settings have changed
    R NAME           drop what was kept longer than the queue's retention
    S SESSION        forget a gateway that has been silent
    T NAME           forget where a topic's messages were routed to long ago
    W NUMBER SELECTOR  forget a selector that nobody has asked with for long, and its marks
    X NUMBER CHUNK   the chunk's messages expire

Invariants, checked by the model test after every step:
    `r` exists for a chunk without a group ⇔ one of its segments is ready
    `r` exists for a group ⇔ it may be served and its first chunk is ready
    `d … C` exists for exactly the `due_ms` of its segments
    a queue's ready + leased + delayed + dead = the messages in its chunks' segments;  bytes = the sum of their sizes
    `Z` exists for exactly the `due_ms` of the tasks that run, at most one of a queue
    a group's in_flight = its leased messages;  a queue's marks = its marked groups
    `f` exists for a selector and a chunk ⇔ a ready message of the chunk is selected
    a queue's unsifted = its `F` with a chunk, all of which exist;  `F NUMBER 0` exists ⇔ one of its selectors is behind
    what is not to be sifted any more is selected ⇔ it matches
    `a DUE NAME` exists for exactly the `next_ms` of schedules that are not paused and not at their end
    `A` = the number of access keys, and of those that are an admin's
    `e INDEX` = the number of chunks whose `index` it is;  a chunk without segments does not exist
"""

from __future__ import annotations

from typing import Literal

import msgspec

from storage.options import Plan
from storage.settings import QueueSettings, Rate

RANK_DEFAULT = 9
"""The rank of priority 0."""

NEVER = -1
"""The `next_ms` of a schedule that has come to its end."""

DEAD = -1
"""The `due_ms` of a segment whose messages were given up and had nowhere to go."""


class Shard(msgspec.Struct, array_like=True):
    """What belongs to no queue. `clock_ms` never runs back; `redrives` tasks were started so far."""

    clock_ms: int = 0
    next_number: int = 1
    queues: int = 0
    keys: int = 0
    schedules: int = 0
    redrives: int = 0
    topics: int = 0
    parties: int = 0


class Selector(msgspec.Struct, array_like=True):
    """A filter that consumers of a queue ask with, the last time at `used_ms`.

    Of the messages that were there before it, with ids below `until_id`, those below `sifted_id` have been sifted.
    """

    number: int
    used_ms: int
    sifted_id: int
    until_id: int

    @property
    def is_behind(self) -> bool:
        """Whether not all has been sifted that was there before it."""
        return self.sifted_id < self.until_id


class Queue(msgspec.Struct, array_like=True):
    """A queue.

    `next_id` is the id of the next message sent. `retention_due_ms` is its pending retention timer, 0 for none; chunks
    named below `swept_id` have been through retention: what they still hold is dropped when its lease or delay ends.
    `changed_ms` is when its settings last changed, 0 for never. `grouped_ready` of the ready messages are in groups, of
    which `marks` may be served. `round` is the rank of the group served last (fair queues), `served_us` the rate's
    theoretical arrival time (see `storage.flow`). `active` is the one consumer of a single-active queue, until
    `active_until_ms`. `dedups` ids are remembered, the oldest until `dedup_due_ms`, for which a timer is set.
    `unsifted` of its chunks are to be sifted for its `selectors`, of whose sifting `sift` steps were taken.
    """

    name: str
    number: int
    settings: QueueSettings
    created_ms: int
    next_id: int = 1
    ready: int = 0
    leased: int = 0
    delayed: int = 0
    bytes: int = 0
    retention_due_ms: int = 0
    swept_id: int = 0
    dead: int = 0
    changed_ms: int = 0
    grouped_ready: int = 0
    marks: int = 0
    round: int = 0
    served_us: int = 0
    active: str = ""
    active_until_ms: int = 0
    dedups: int = 0
    dedup_due_ms: int = 0
    selectors: list[Selector] = []
    sift: int = 0
    unsifted: int = 0

    @property
    def messages(self) -> int:
        """How many messages it holds, in any state."""
        return self.ready + self.leased + self.delayed + self.dead


class Dead(msgspec.Struct, array_like=True, frozen=True):
    """Why messages were given up. All of them stood alike.

    The message at position `p` of its chunk had the id `message_id + p` in `queue`. It was sent there at `sent_ms`,
    delivered `attempts` times between `first_ms` and `last_ms` (0: never), the last time to `consumer`, and given up at
    `at_ms` because of `reason`.
    """

    queue: str
    message_id: int
    reason: str
    attempts: int
    consumer: str
    sent_ms: int
    first_ms: int
    last_ms: int
    at_ms: int

    def behind(self, position: int) -> Dead:
        """The same for the messages from `position` of the chunk on, in a chunk of their own."""
        return msgspec.structs.replace(self, message_id=self.message_id + position)


class Segment(msgspec.Struct, array_like=True):
    """`count` messages from position `first` on that stand alike.

    ready: token 0, due_ms 0 · leased: token ≠ 0, until due_ms · delayed: token 0, until due_ms · dead: due_ms `DEAD`.
    `attempts` counts deliveries so far, the first at `first_ms`, the last at `last_ms`, to `consumer`. `dead` says why
    they were given up: here, or before they came here. `redriven` ≠ 0: that is past, for this task gave them another
    chance.
    """

    first: int
    count: int
    attempts: int = 0
    token: int = 0
    due_ms: int = 0
    first_ms: int = 0
    last_ms: int = 0
    consumer: str = ""
    dead: Dead | None = None
    redriven: int = 0


class Extras(msgspec.Struct, array_like=True, frozen=True):
    """What messages of a chunk have beyond body, properties and place; all that is not default.

    `grouped`: their group decides when they are delivered (set when they come; settings may change later).
    `expires_ms`: 0 for none of their own. `properties` take the place of those in the log, for a single message.
    `topic` says by what they came, where the message at position `p` of the chunk has the id `publish_id + p`; or
    `schedule` and `occurrence_ms` do.
    """

    group: str = ""
    grouped: bool = False
    priority: int = 0
    key: str = ""
    dedup_id: str = ""
    expires_ms: int = 0
    properties: bytes | None = None
    topic: str = ""
    publish_id: int = 0
    schedule: str = ""
    occurrence_ms: int = 0
    producer: str = ""


class Blocks(msgspec.Struct, array_like=True, frozen=True):
    """Messages `first` … `first + count - 1` of the block of `total` messages at `offset` of the log entry."""

    offset: int
    total: int
    first: int
    count: int


class Chunk(msgspec.Struct, array_like=True):
    """Messages of one queue from one log entry.

    `blocks` are where their bodies lie in the entry; `sizes` the bytes of each (little-endian u32), so that settling a
    message reads nothing of the log; `segments` where they stand, in order; `rank` what its ready mark is filed under.
    `selected` has the positions that selectors want, as bits (little-endian), of selectors that want any.
    """

    index: int
    sent_ms: int
    blocks: list[Blocks]
    sizes: bytes
    segments: list[Segment]
    rank: int = RANK_DEFAULT
    extras: Extras | None = None
    selected: dict[int, bytes] | None = None

    @property
    def count(self) -> int:
        """How many messages the chunk had when it was sent."""
        return len(self.sizes) // 4


class Group(msgspec.Struct, array_like=True):
    """A group of messages.

    `in_flight` are leased. Its mark is at chunk `marked` with `rank`; 0: it has none. `served_us` as for a queue;
    `flow_due_ms` is the timer at which its rate lets it be served again, 0 for none.
    """

    in_flight: int = 0
    rank: int = 0
    marked: int = 0
    served_us: int = 0
    flow_due_ms: int = 0


class Dedup(msgspec.Struct, array_like=True, frozen=True):
    """The message that had a dedup id, and until when that is remembered."""

    message_id: int
    until_ms: int


class Event(msgspec.Struct, array_like=True, frozen=True):
    """Something that happened to `count` messages of a chunk from position `first` on. See `storage.history`."""

    first: int
    count: int
    at_ms: int
    what: str
    who: str = ""
    why: str = ""


class History(msgspec.Struct, array_like=True):
    """What happened to messages of a chunk of `count`, sent at `sent_ms`. `forgotten` older events were dropped."""

    count: int
    sent_ms: int
    events: list[Event]
    forgotten: int = 0


class Schedule(msgspec.Struct, array_like=True):
    """A schedule.

    `version` counts its plans. `next_ms` is when it sends next: 0 is for the leader to find out, from `after_ms` on;
    `NEVER`: not again. Times up to `resumed_ms` were missed, because it was paused. `caught_up` missed ones were sent
    one after another. It has sent `sent` messages and skipped `skipped` times, the last at `skipped_ms`, because the
    message before was still there. The last one sent was for `last_ms`, at `last_sent_ms`, and is message `last_id` of
    the queue with the number `last_number`. From `missed_ms` on times were left out the last time that some were. The
    last time came to nothing because of `trouble`, at `trouble_ms`; empty: it went well.
    """

    name: str
    plan: Plan
    created_ms: int
    changed_ms: int
    version: int = 1
    next_ms: int = 0
    after_ms: int = 0
    resumed_ms: int = 0
    caught_up: int = 0
    sent: int = 0
    skipped: int = 0
    skipped_ms: int = 0
    last_ms: int = 0
    last_sent_ms: int = 0
    last_id: int = 0
    last_number: int = 0
    missed_ms: int = 0
    trouble: str = ""
    trouble_ms: int = 0


class RedriveFilter(msgspec.Struct, array_like=True, frozen=True):
    """Which dead letters are wanted: filters in JSON (see `storage.filters`) of why they were given up, of attributes
    and of bodies. All must match; an empty one is none."""

    dead: str = ""
    attributes: str = ""
    body: str = ""


class Moved(msgspec.Struct, array_like=True):
    """A task has moved `count` messages to the queue that had `number`; they are among its ids `first_id` …
    `last_id`."""

    queue: str
    number: int
    first_id: int
    last_id: int
    count: int


class Redrive(msgspec.Struct, array_like=True):
    """A task that moves dead letters of a queue, or moves back what the task `undoes` has moved.

    `state`: "running", "done", "cancelled", or "stopped" because of `cause` (a refusal's code) at the queue `detail`.
    It looks at ids below `until_id`, of `messages` there were then, and has looked at those up to `after`. `looked`
    were there, `moved` were moved, `held` were wanted but leased. `targets` are the queues it has moved to; of an undo
    those it moves from, of which it is at the one numbered `target`. `step` steps were taken; the next is due at
    `due_ms`, 0 for never. `served_us` as for a queue. `patterns`: for which queues whoever began it may do so.
    """

    task: int
    to: str
    filter: RedriveFilter
    rate: Rate | None
    undoes: int
    started_ms: int
    messages: int
    until_id: int
    state: str = "running"
    cause: str = ""
    detail: str = ""
    ended_ms: int = 0
    step: int = 0
    target: int = 0
    after: int = 0
    looked: int = 0
    moved: int = 0
    held: int = 0
    targets: list[Moved] = []
    due_ms: int = 0
    served_us: int = 0
    patterns: list[str] = []


class Topic(msgspec.Struct, array_like=True):
    """A topic.

    `fifo`: its queues are, too. `next_id` is the id of the next message published to it. `version` is a number that
    was never given before whenever its subscriptions change, of which there are `subscriptions`. `routes` publishes are
    remembered, the oldest until `routes_due_ms`, for which a timer is set. `labels` are for clients: the rules do not
    look at them.
    """

    name: str
    number: int
    fifo: bool
    created_ms: int
    next_id: int = 1
    version: int = 0
    subscriptions: int = 0
    routes: int = 0
    routes_due_ms: int = 0
    labels: dict[str, str] = {}


class Subscription(msgspec.Struct, array_like=True, frozen=True):
    """Messages of `topic` whose routing key fits `pattern`, and which `filter` (JSON; empty: all) wants, go to `queue`.

    `version` is the topic's when this was put: it names this state of the subscription. `enveloped`: its messages come
    in their second form, see `storage.operations.Publish`.
    """

    topic: str
    name: str
    queue: str
    pattern: str
    filter: str
    filter_on: Literal["attributes", "body"]
    enveloped: bool
    created_ms: int
    version: int


class Placed(msgspec.Struct, array_like=True, frozen=True):
    """Messages `first` … `first + count - 1` of a publish have ids from `message_id` on in a queue.

    duplicate: they were sent there before, and these are the originals' ids.
    """

    first: int
    count: int
    message_id: int
    duplicate: bool = False


class Routed(msgspec.Struct, array_like=True, frozen=True):
    """What a subscription took into its queue of one publish."""

    subscription: str
    queue: str
    placed: list[Placed]


class Routes(msgspec.Struct, array_like=True, frozen=True):
    """Where `count` messages published together were routed to, at `at_ms`."""

    count: int
    at_ms: int
    routed: list[Routed]


class Party(msgspec.Struct, array_like=True):
    """A producer or a consumer. `seen_ms`: when it last sent, or was delivered something, to the minute; 0: never."""

    id: str
    name: str
    type: str
    created_ms: int
    seen_ms: int = 0


class Session(msgspec.Struct, array_like=True):
    """A gateway's run.

    It has its answers to every `seq` below `below`; `heard_ms` is when it last proposed; `top` the greatest `seq` whose
    outcome was remembered.
    """

    below: int = 0
    heard_ms: int = 0
    top: int = 0


class KeyMemory(msgspec.Struct, array_like=True):
    """What is remembered under an `Idempotency-Key`: the digest of its request, and the encoded outcome."""

    fingerprint: bytes
    outcome: bytes


class Access(msgspec.Struct, array_like=True, frozen=True):
    """The access keys: how many, how many of them an admin's, and the log entry that last made or revoked one."""

    keys: int = 0
    admins: int = 0
    changed_index: int = 0


class AccessKey(msgspec.Struct, array_like=True, frozen=True):
    """An access key: its secret, sealed by what only gateways have, its roles, and patterns for names of queues."""

    id: str
    sealed: bytes
    roles: list[str]
    queues: list[str]
    note: str = ""
    created_ms: int = 0


encode = msgspec.msgpack.Encoder().encode
decode_shard = msgspec.msgpack.Decoder(Shard).decode
decode_queue = msgspec.msgpack.Decoder(Queue).decode
decode_chunk = msgspec.msgpack.Decoder(Chunk).decode
decode_group = msgspec.msgpack.Decoder(Group).decode
decode_dedup = msgspec.msgpack.Decoder(Dedup).decode
decode_history = msgspec.msgpack.Decoder(History).decode
decode_schedule = msgspec.msgpack.Decoder(Schedule).decode
decode_redrive = msgspec.msgpack.Decoder(Redrive).decode
decode_topic = msgspec.msgpack.Decoder(Topic).decode
decode_subscription = msgspec.msgpack.Decoder(Subscription).decode
decode_routes = msgspec.msgpack.Decoder(Routes).decode
decode_party = msgspec.msgpack.Decoder(Party).decode
decode_session = msgspec.msgpack.Decoder(Session).decode
decode_key_memory = msgspec.msgpack.Decoder(KeyMemory).decode
decode_access = msgspec.msgpack.Decoder(Access).decode
decode_access_key = msgspec.msgpack.Decoder(AccessKey).decode
decode_run = msgspec.msgpack.Decoder(list[bytes]).decode
