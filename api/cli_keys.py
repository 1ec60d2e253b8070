"""Commands for access keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter

from api.console import DEFAULT_URL, CommandError, Exit, Json, Url, UsageError, printable, say, say_json, say_table
from api.console_client import Client
from api.own_key import VARIABLE, save

Key = Annotated[str, Parameter(help="The key's id.")]
Role = Literal["producer", "consumer", "manager", "admin"]

keys = App(
    name="keys",
    help="""Make, list and revoke access keys. Alone, it lists them.

    As long as there is none, programs on a node's own machine may do everything. The first must be an admin's.

    ```
    trimaran keys create --role admin --save
    trimaran keys create --role producer --role consumer --queues 'orders-*' --note "the shop"
    trimaran keys revoke TRIABCDEFGHIJKLMNOPQ
    ```
    """,
    default_parameter=Parameter(negative=""),
    help_format="markdown",
)


@keys.default
@keys.command(name="list")
def list_(*, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """List all keys, without their secrets.

    ```
    trimaran keys list
    ```
    """
    answer = Client(url).request("GET", "/v1/keys")
    if json:
        say_json(answer)
    elif not answer["keys"]:
        say("There are no keys yet: programs on a node's own machine may do everything, and nobody else anything.")
        say("Make the first: trimaran keys create --role admin --save")
    else:
        _say_keys(answer["keys"])
    return Exit.DONE


@keys.command
def create(
    *,
    role: Annotated[tuple[Role, ...], Parameter(help="What it may do: producer, consumer, manager, admin.")],
    queues: Annotated[
        tuple[str, ...], Parameter(help="With which queues: a name, or a pattern with * for any characters.")
    ] = (),
    note: Annotated[str, Parameter(help="What it is for.")] = "",
    save_: Annotated[bool, Parameter(name="--save", help="Keep it for this user's commands.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Make a key. Its secret is told this once, and never again.

    ```
    trimaran keys create --role admin --save
    trimaran keys create --role manager --queues 'celery*' --note "Celery"
    ```
    """
    asked: dict[str, Any] = {"roles": list(role), "note": note} | ({"queues": list(queues)} if queues else {})
    made = Client(url).request("POST", "/v1/keys", asked)
    if json:
        say_json(made)
    else:
        _say_made(made)
    if save_:
        try:
            path = save(made["id"], made["secret"])
        except OSError as error:
            raise CommandError(f"the key was made, but could not be saved: {error}") from error
        if not json:
            say(f"It was saved in {path}, where every command of this user finds it.")
    return Exit.DONE


@keys.command
def show(key: Key, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Show one key, without its secret.

    ```
    trimaran keys show TRIABCDEFGHIJKLMNOPQ
    ```
    """
    answer = Client(url).request("GET", _path(key))
    say_json(answer) if json else _say_keys([answer])
    return Exit.DONE


@keys.command
def revoke(key: Key, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Revoke a key, on all nodes at once. What was asked with it before is still done.

    ```
    trimaran keys revoke TRIABCDEFGHIJKLMNOPQ
    ```
    """
    Client(url).request("DELETE", _path(key))
    say_json({"id": key, "revoked": True}) if json else say(f"key {printable(key)} is revoked")
    return Exit.DONE


@keys.command(name="seal-key")
def seal_key(file: Annotated[Path, Parameter(help="The file to make.")], /) -> int:
    """Make the file with what keys' secrets are sealed with. Every node of a cluster needs the same.

    A single node makes its own, and `trimaran certs issue` puts one beside each node's certificate.

    ```
    trimaran keys seal-key seal.key
    trimaran serve --seal-key seal.key
    ```
    """
    from api.sealing import make

    try:
        made = make(file)
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}") from error
    if not made:
        raise CommandError(f"{file} exists: with another seal key, the access keys that there are could not be used")
    say(f"made {file}: give it to every node, by --seal-key, and to nobody else")
    return Exit.DONE


def _path(key: str) -> str:
    if not key:
        raise UsageError("the key's id is empty")
    return "/v1/keys/" + quote(key, safe="")


def _say_keys(found: list[dict[str, Any]]) -> None:
    columns = ("id", "roles", "queues", "note", "created")
    rows = (
        (key["id"], ", ".join(key["roles"]), ", ".join(key["queues"]), key["note"], key["created"]) for key in found
    )
    say_table(columns, rows)


def _say_made(made: dict[str, Any]) -> None:
    say(f"made a key, {' and '.join(made['roles'])} of {', '.join(made['queues'])}. Its secret is not told again.")
    say(f"""
  id      {made["id"]}
  secret  {made["secret"]}

For trimaran's commands:  export {VARIABLE}={made["id"]}:{made["secret"]}
For curl and others:      curl --user {made["id"]}:{made["secret"]} …
For clients of SQS:       aws_access_key_id and aws_secret_access_key
""")
