"""E-mails at times: a digest by a cron expression in its reader's time zone, and a reminder on one day.

    python -m examples.scheduled_emails subscribe ada@example.org --cron "0 9 * * MON-FRI" --time-zone Europe/Berlin
    python -m examples.scheduled_emails remind ada@example.org "the regatta begins" --at 2030-06-01T08:00:00+02:00
    python -m examples.scheduled_emails send --outbox mails.sqlite

The cluster keeps the time: each mail is put into the queue once, whoever leads by then, and no program has to run
meanwhile. `send` is the worker: start as many as you like, kill them as you like. Each mail has an id (for a digest,
the reader and the time that it is for), by which the outbox takes it once.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import urllib.error
import urllib.request
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

QUEUE = "mails"
WAIT_MS = 5_000


class Refused(Exception):
    """The cluster has said no, and why."""


class Cluster:
    """One node of it, over plain HTTP. `queue_client` shows how to go on with the next when it is gone."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def ask(self, method: str, path: str, document: Any) -> Any:
        """Raises `Refused`, and `OSError` when nobody answers."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        request = urllib.request.Request(self._url + path, json.dumps(document).encode(), headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=WAIT_MS / 1000 + 10) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            problem = json.load(error)
            raise Refused(f"{problem['detail']} {problem.get('remedy', '')}") from error


class Outbox:
    """What was sent. A real one would be a mail provider that takes an idempotency key."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("CREATE TABLE IF NOT EXISTS mails (id TEXT PRIMARY KEY, reader TEXT, text TEXT)")

    def send(self, mail_id: str, reader: str, text: str) -> bool:
        """Send it, durably; says whether it was new."""
        sent = self._db.execute("INSERT OR IGNORE INTO mails VALUES (?, ?, ?)", (mail_id, reader, text))
        return sent.rowcount == 1

    def sent(self) -> list[tuple[str, str, str]]:
        """Id, reader and text of every mail, by id."""
        return list(self._db.execute("SELECT * FROM mails ORDER BY id"))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def subscribe(cluster: Cluster, reader: str, timing: dict[str, Any]) -> list[str]:
    """Send `reader` a digest at times; returns the next ones. Subscribing again replaces the times."""
    message = {"body": json.dumps({"reader": reader, "text": "your digest"})}
    # One digest a time: while one waits for a worker there need not be another. What an outage held up is worth one.
    plan = {"queue": QUEUE, "message": message, "overlap": "skip", "catch_up": "one", **timing}
    name = "digest-" + re.sub("[^A-Za-z0-9]", "-", reader)[:60]
    return list(cluster.ask("PUT", f"/v1/schedules/{name}", plan)["next"])


def remind(cluster: Cluster, reader: str, text: str, at: str) -> None:
    """Send `reader` one mail at a time, years ahead if need be."""
    body = json.dumps({"reader": reader, "text": text})
    cluster.ask("POST", f"/v1/queues/{QUEUE}/messages", {"body": body, "at": at})


def send(cluster: Cluster, outbox: Outbox) -> int:
    """Send what is due, or wait a while for it; returns how many mails were new."""
    received = cluster.ask("POST", f"/v1/queues/{QUEUE}/receive", {"max": 100, "wait_ms": WAIT_MS})["messages"]
    new = 0
    for message in received:
        mail = json.loads(message["body"])
        made_by = (message["schedule"], message["occurrence"]) if "schedule" in message else (message["message_id"],)
        new += outbox.send(" ".join(map(str, made_by)), mail["reader"], mail["text"])
    if received:  # only now: had we died before, they would come again, and the outbox would know them
        cluster.ask("POST", f"/v1/queues/{QUEUE}/ack", {"receipts": [message["receipt"] for message in received]})
    return new


def main(tokens: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7700", help="a node of the cluster")
    commands = parser.add_subparsers(dest="command", required=True)
    subscribing = commands.add_parser("subscribe", help="send a digest at times")
    subscribing.add_argument("reader")
    when = subscribing.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron")
    when.add_argument("--every-ms", type=int)
    subscribing.add_argument("--time-zone")
    reminding = commands.add_parser("remind", help="send one mail at a time")
    reminding.add_argument("reader")
    reminding.add_argument("text")
    reminding.add_argument("--at", required=True, help="RFC 3339, with its offset")
    sending = commands.add_parser("send", help="send what is due, until interrupted")
    sending.add_argument("--outbox", type=Path, default=Path("mails.sqlite"))
    options = parser.parse_args(tokens)
    cluster = Cluster(options.url)
    cluster.ask("PUT", f"/v1/queues/{QUEUE}", {})
    if options.command == "subscribe":
        given = {"cron": options.cron, "every_ms": options.every_ms, "time_zone": options.time_zone}
        times = subscribe(cluster, options.reader, {name: value for name, value in given.items() if value is not None})
        print("next:", ", ".join(times))
    elif options.command == "remind":
        remind(cluster, options.reader, options.text, options.at)
    else:
        with closing(Outbox(options.outbox)) as outbox:
            while True:
                print(f"sent {send(cluster, outbox)}", flush=True)


if __name__ == "__main__":
    main()
