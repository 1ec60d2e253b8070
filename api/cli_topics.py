"""Commands for topics: what is published to one goes to the queues of all subscriptions that want it."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter, validators

from api.cli_messages import as_message, read_attribute, read_body
from api.console import DEFAULT_URL, Exit, Json, Url, UsageError, json_option, printable, say, say_json, say_table
from api.console_client import Client

Topic = Annotated[str, Parameter(help="The topic.")]
Subscription = Annotated[str, Parameter(help="The subscription.")]

topics = App(
    name="topics",
    help="""Publish messages to all queues that want them: topics, their subscriptions, and where messages went.

    ```
    trimaran topics create orders
    trimaran topics subscribe orders invoices invoices --filter '{"kind": ["order", "refund"]}'
    trimaran topics publish orders "one sloop" --attribute kind=order
    ```

    Alone, it lists all topics.
    """,
    default_parameter=Parameter(negative=""),
    help_format="markdown",
)


@topics.default
@topics.command(name="list")
def list_(*, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """List all topics.

    ```
    trimaran topics list
    ```
    """
    client, found, after = Client(url), [], ""
    while page := client.request("GET", f"/v1/topics?after={after}")["topics"]:
        found += page
        after = page[-1]["topic"]
    if json:
        say_json({"topics": found})
    elif not found:
        say("There are no topics yet. Make one: trimaran topics create NAME")
    else:
        columns = ("topic", "fifo", "subscriptions", "published")
        rows = ([topic[column] for column in columns] for topic in found)
        say_table(columns, rows, numbers=("subscriptions", "published"))
    return Exit.DONE


@topics.command
def create(
    topic: Topic,
    /,
    *,
    fifo: Annotated[bool, Parameter(help="Its messages have groups, and its queues are fifo.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Create a topic; one that is there stays as it is.

    ```
    trimaran topics create orders
    ```
    """
    answer = Client(url).request("PUT", topic_path(topic), {"fifo": fifo})
    done = "created" if answer["changed"] else "there already"
    say_json(answer) if json else say(f"topic {printable(topic)} is {done}")
    return Exit.DONE


@topics.command
def show(topic: Topic, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Show a topic's subscriptions.

    ```
    trimaran topics show orders
    ```
    """
    client, found, after = Client(url), [], ""
    shown = client.request("GET", topic_path(topic))
    while page := client.request("GET", topic_path(topic, f"subscriptions?after={after}"))["subscriptions"]:
        found += page
        after = page[-1]["subscription"]
    if json:
        say_json(shown | {"subscriptions": found})
    elif not found:
        say(f"topic {printable(topic)} has no subscriptions: what is published goes nowhere")
    else:
        say_table(("subscription", "queue", "pattern", "filter", "on"), map(_row, found))
    return Exit.DONE


def _row(subscription: dict[str, Any]) -> list[object]:
    filter_ = subscription["filter"]
    return [
        subscription["subscription"],
        subscription["queue"] + ("" if subscription["queue_exists"] else " (takes nothing)"),
        subscription["pattern"],
        None if filter_ is None else json_module.dumps(filter_, ensure_ascii=False),
        None if filter_ is None else subscription["filter_on"],
    ]


@topics.command
def delete(topic: Topic, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Delete a topic and its subscriptions. What is in queues stays there.

    ```
    trimaran topics delete orders
    ```
    """
    Client(url).request("DELETE", topic_path(topic))
    say_json({"topic": topic, "deleted": True}) if json else say(f"topic {printable(topic)} is deleted")
    return Exit.DONE


@topics.command
def subscribe(
    topic: Topic,
    subscription: Subscription,
    queue: Annotated[str, Parameter(help="The queue to send to.")],
    /,
    *,
    pattern: Annotated[str, Parameter(help="Which routing keys: words with dots, * for one, # for any number.")] = "#",
    filter_: Annotated[str | None, Parameter(name="--filter", help="Which messages: a filter in JSON.")] = None,
    filter_on: Annotated[Literal["attributes", "body"], Parameter(help="What the filter looks at.")] = "attributes",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Send what is published on a topic to a queue as well; a subscription of this name is replaced.

    ```
    trimaran topics subscribe orders audit audit
    trimaran topics subscribe orders german invoices --pattern "orders.de.#"
    trimaran topics subscribe orders large sales --filter '{"total": [{"numeric": [">", 100]}]}' --filter-on body
    ```
    """
    asked: dict[str, Any] = {"queue": queue, "pattern": pattern, "filter_on": filter_on}
    if filter_ is not None:
        asked["filter"] = json_option("--filter", filter_)
    answer = Client(url).request("PUT", topic_path(topic, "subscriptions", _named(subscription)), asked)
    if json:
        say_json(answer)
    else:
        say(f"queue {printable(queue)} gets what subscription {printable(subscription)} wants of {printable(topic)}")
    return Exit.DONE


@topics.command
def unsubscribe(topic: Topic, subscription: Subscription, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Delete a subscription. What it took stays in its queue.

    ```
    trimaran topics unsubscribe orders audit
    ```
    """
    Client(url).request("DELETE", topic_path(topic, "subscriptions", _named(subscription)))
    if json:
        say_json({"topic": topic, "subscription": subscription, "deleted": True})
    else:
        say(f"subscription {printable(subscription)} of topic {printable(topic)} is deleted")
    return Exit.DONE


@topics.command
def publish(
    topic: Topic,
    body: Annotated[str, Parameter(allow_leading_hyphen=True, help="The body; - reads it from standard input.")],
    /,
    *,
    routing_key: Annotated[str, Parameter(help="What patterns look at.")] = "",
    attribute: Annotated[
        tuple[str, ...], Parameter(alias="-a", help="NAME=VALUE, sent beside the body; may be repeated.")
    ] = (),
    group: Annotated[str | None, Parameter(help="The message's group.")] = None,
    dry_run: Annotated[bool, Parameter(help="Say who would get it and why others not, and publish nothing.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Publish a message, to all queues that want it or to none.

    ```
    trimaran topics publish orders "one sloop" --attribute kind=order --routing-key orders.de
    trimaran topics publish orders '{"total": 150}' --dry-run
    ```
    """
    message = as_message(read_body(body)) | {"routing_key": routing_key}
    message |= {"attributes": dict(map(read_attribute, attribute))} if attribute else {}
    message |= {} if group is None else {"group": group}
    path = topic_path(topic, "messages?dry_run=true" if dry_run else "messages")
    answer = Client(url).request("POST", path, {"messages": [message]})
    if json:
        say_json(answer)
    elif dry_run:
        _say_verdicts(answer["messages"][0])
    else:
        (told,) = answer["messages"]
        _say_routes(told)
    return Exit.DONE


@topics.command
def where(
    topic: Topic,
    message: Annotated[int, Parameter(validator=validators.Number(gte=1), help="The message's number.")],
    /,
    *,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Show which queues a message was sent to. That is known for a day.

    ```
    trimaran topics where orders 17
    ```
    """
    answer = Client(url).request("GET", topic_path(topic, "messages", str(message)))
    say_json(answer) if json else _say_routes(answer)
    return Exit.DONE


def _say_routes(told: dict[str, Any]) -> None:
    number, queues = told["message_id"], told["queues"]
    if not queues:
        say(f"message {number} went nowhere: no subscription wants it")
        return
    say(f"message {number} went to:")
    columns = ("queue", "subscription", "as", "duplicate")
    rows = ([each["queue"], each["subscription"], each["message_id"], "duplicate" in each] for each in queues)
    say_table(columns, rows, numbers=("as",))


def _say_verdicts(told: dict[str, Any]) -> None:
    rows = (
        [each["subscription"], each["queue"], each["takes"], each.get("why")]
        for each in sorted(told["subscriptions"], key=lambda each: not each["takes"])
    )
    say_table(("subscription", "queue", "takes it", "why not"), rows)


def topic_path(topic: str, *rest: str) -> str:
    """The path of a topic or of something in it. Raises `UsageError` for an empty name, which would mean all topics."""
    if not topic:
        raise UsageError("the topic's name is empty")
    return "/".join(("/v1/topics", quote(topic, safe=""), *rest))


def _named(subscription: str) -> str:
    if not subscription:
        raise UsageError("the subscription's name is empty")
    return quote(subscription, safe="")
