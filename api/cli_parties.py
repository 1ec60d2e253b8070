"""Commands for producers and consumers."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from cyclopts import App, Parameter

from api.console import DEFAULT_URL, Exit, Json, Url, UsageError, printable, say, say_json, say_table
from api.console_client import Client

Id = Annotated[str, Parameter(help="What messages or receives say as their producer or consumer.")]
Name = Annotated[str, Parameter(help="What to call it; default: its id.")]
Type = Annotated[str, Parameter(help="Of what type it is, in your own words.")]


def _commands(kind: str) -> App:
    """The commands for one kind: list, register, forget."""
    app = App(
        name=f"{kind}s",
        help=f"""List, register and forget {kind}s. Alone, it lists them.

    ```
    trimaran {kind}s register shop-1 --name "The shop" --type web
    trimaran {kind}s
    ```
    """,
        default_parameter=Parameter(negative=""),
        help_format="markdown",
    )

    def list_(*, url: Url = DEFAULT_URL, json: Json = False) -> int:
        client, found, after = Client(url), [], ""
        while page := client.request("GET", f"/v1/{kind}s?after={quote(after, safe='')}")[f"{kind}s"]:
            found += page
            after = page[-1]["id"]
        if json:
            say_json({f"{kind}s": found})
        elif not found:
            say(f"No {kind} is registered; none has to be. Register one: trimaran {kind}s register ID")
        else:
            columns = ["id", "name", "type", "registered", "seen", *(["waiting"] if kind == "consumer" else [])]
            say_table(columns, ([each.get(column) for column in columns] for each in found), numbers=("waiting",))
        return Exit.DONE

    def register(party: Id, /, *, name: Name = "", type_: Type = "", url: Url = DEFAULT_URL, json: Json = False) -> int:
        answer = Client(url).request("PUT", _path(kind, party), {"name": name, "type": type_})
        say_json(answer) if json else say(f"{kind} {printable(party)} is registered")
        return Exit.DONE

    def forget(party: Id, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
        Client(url).request("DELETE", _path(kind, party))
        say_json({"id": party, "deleted": True}) if json else say(f"{kind} {printable(party)} is forgotten")
        return Exit.DONE

    list_.__doc__ = f"List registered {kind}s, with when each was last seen."
    register.__doc__ = f"Register a {kind}, or change its name and type."
    forget.__doc__ = f"Forget a {kind}. Its messages and leases stay."
    app.default(list_)
    app.command(list_, name="list")
    app.command(register)
    app.command(forget)
    return app


def _path(kind: str, party: str) -> str:
    if not party:
        raise UsageError(f"the {kind}'s id is empty")
    return f"/v1/{kind}s/{quote(party, safe='')}"


producers = _commands("producer")
consumers = _commands("consumer")
