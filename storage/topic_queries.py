"""What can be read of topics."""

from __future__ import annotations

import msgspec

from storage import record_keys, records
from storage.access import matches
from storage.block import Part
from storage.codes import MALFORMED, ROUTES_NOT_FOUND, TOPIC_NOT_FOUND
from storage.limits import BATCH_MESSAGES_MAX, ID_END
from storage.operations import (
    Outcome,
    Refused,
)
from storage.records import Placed, Routed, Topic
from storage.routing import find_topic, table_of
from storage.state import State
from storage.topic_operations import (
    GetRoutes,
    GetTopic,
    ListSubscriptions,
    ListTopics,
    Rehearse,
    RoutesTold,
    SubscriptionInfo,
    SubscriptionList,
    TopicInfo,
    TopicList,
    Verdict,
    Verdicts,
)

TopicQuery = GetTopic | ListTopics | ListSubscriptions | Rehearse | GetRoutes


def answer(state: State, query: TopicQuery) -> Outcome:
    """The outcome of a query."""
    if isinstance(query, ListTopics):
        if not 0 < query.limit <= BATCH_MESSAGES_MAX:
            return Refused(MALFORMED)
        return _topics(state, query)
    topic = find_topic(state, query.topic)
    if topic is None:
        return Refused(TOPIC_NOT_FOUND)
    match query:
        case GetTopic():
            return _info(topic)
        case ListSubscriptions():
            if not 0 < query.limit <= BATCH_MESSAGES_MAX:
                return Refused(MALFORMED)
            return _subscriptions(state, topic, query)
        case Rehearse():
            return _rehearse(state, topic, query)
        case GetRoutes():
            return _routes(state, topic, query.message_id)


def _info(topic: Topic) -> TopicInfo:
    return TopicInfo(topic.name, topic.fifo, topic.created_ms, topic.subscriptions, topic.next_id - 1, topic.labels)


def _topics(state: State, query: ListTopics) -> TopicList:
    found: list[TopicInfo] = []
    for key, record in state.scan(record_keys.TOPICS, query.after.encode()):
        name = key[1:].decode()
        if name == query.after or (query.patterns and not any(matches(each, name) for each in query.patterns)):
            continue
        if len(found) >= query.limit:
            break
        found.append(_info(records.decode_topic(record)))
    return TopicList(found)


def _subscriptions(state: State, topic: Topic, query: ListSubscriptions) -> SubscriptionList:
    found: list[SubscriptionInfo] = []
    for _, record in state.scan(record_keys.subscription_prefix(topic.number), (query.only or query.after).encode()):
        subscription = records.decode_subscription(record)
        if subscription.name == query.after:
            continue
        if len(found) >= query.limit or query.only not in ("", subscription.name):
            break
        found.append(
            SubscriptionInfo(
                topic.name,
                subscription.name,
                subscription.queue,
                subscription.pattern,
                subscription.filter,
                subscription.filter_on,
                subscription.enveloped,
                subscription.created_ms,
                not _what_is_wrong(state, topic, subscription.queue),
                subscription.version,
            )
        )
    return SubscriptionList(found)


def _what_is_wrong(state: State, topic: Topic, queue: str) -> str:
    """Why nothing comes into a queue, or empty."""
    number = state.get(record_keys.name_key(queue))
    if number is None:
        return f"there is no queue {queue}"
    is_fifo = records.decode_queue(state.get(b"n" + number) or b"").settings.fifo
    if is_fifo != topic.fifo:
        return f"queue {queue} is {'' if is_fifo else 'not '}fifo, and the topic is{'' if topic.fifo else ' not'}"
    return ""


def _rehearse(state: State, topic: Topic, query: Rehearse) -> Verdicts:
    table = table_of(state, topic)
    wrong = {
        subscription: _what_is_wrong(state, topic, told.queue) for subscription, told in table.subscriptions.items()
    }
    messages = []
    for sample in query.messages:
        part = Part(memoryview(sample.body + sample.properties), len(sample.body))
        taken: set[str] = set()
        messages.append([_settled(verdict, wrong, taken) for verdict in table.verdicts(sample.routing_key, part)])
    return Verdicts(messages)


def _settled(verdict: Verdict, wrong: dict[str, str], taken: set[str]) -> Verdict:
    """What a subscription does in the end: its queue may be missing, or have the message by another one."""
    if not verdict.takes:
        return verdict
    why = wrong[verdict.subscription]
    if not why and verdict.queue in taken:
        why = f"queue {verdict.queue} gets it by another subscription"
    taken.add(verdict.queue)
    return msgspec.structs.replace(verdict, takes=not why, why=why)


def _routes(state: State, topic: Topic, message_id: int) -> Outcome:
    """Where one message went: of each run that has it, what became of it alone."""
    if not 0 <= message_id < ID_END:
        return Refused(MALFORMED)
    found = state.floor(record_keys.routes_prefix(topic.number), record_keys.u64(message_id))
    if found is None:
        return Refused(ROUTES_NOT_FOUND)
    first_id, routes = record_keys.read_u64(found[0][5:]), records.decode_routes(found[1])
    position = message_id - first_id
    if position >= routes.count:
        return Refused(ROUTES_NOT_FOUND)
    routed = []
    for one in routes.routed:
        for placed in one.placed:
            if placed.first <= position < placed.first + placed.count:
                alone = Placed(position, 1, placed.message_id + position - placed.first, placed.duplicate)
                routed.append(Routed(one.subscription, one.queue, [alone]))
    return RoutesTold(routes.at_ms, routed)
