"""Commands that make and show the certificates by which nodes know one another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter, validators

from api.console import Exit, Json, UsageError, complain, say, say_json, say_table
from cluster.tls import EXPIRES_SOON_S

DIRECTORY = Path("trimaran-certs")
_days = validators.Number(gte=1, lte=36_500)

Directory = Annotated[Path, Parameter(name=["--dir"], help="Directory of the authority.")]

certs = App(
    name="certs",
    help="""Make the certificates by which the nodes of a cluster know one another.

    ```
    trimaran certs init
    trimaran certs issue n1 n2 n3
    trimaran certs show
    ```
    """,
    default_parameter=Parameter(negative=""),
    help_format="markdown",
)


@certs.command
def init(
    *,
    directory: Directory = DIRECTORY,
    days: Annotated[int, Parameter(validator=_days, help="How long it is valid.")] = 3650,
) -> int:
    """Make an authority: a key that signs certificates, and the certificate by which nodes believe it.

    ```
    trimaran certs init
    trimaran certs init --dir /media/safe/trimaran-2027
    ```
    """
    from api.certificates import CA_KEY, make_authority

    made = make_authority(directory, days=days)
    say(f"made an authority, valid for {days} days: {made}")
    say(f"Whoever has {directory / CA_KEY} can be any node: keep it off the nodes, and keep a copy.")
    say(f"Next, a certificate for each node: trimaran certs issue n1 n2 n3{_directory_flag(directory)}")
    return Exit.DONE


@certs.command
def issue(
    *nodes: Annotated[str, Parameter(help="The nodes, as --node and --peers name them.")],
    host: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="A name or address to put into the certificate too, for uses other than nodes'."),
    ] = (),
    directory: Directory = DIRECTORY,
    days: Annotated[int, Parameter(validator=_days, help="How long each is valid; never longer than the CA.")] = 365,
    replace: Annotated[bool, Parameter(help="Put new ones in the place of those that exist.")] = False,
) -> int:
    """Make a key and a certificate for each node named, signed by the authority in the directory.

    A running node takes up new files by itself within seconds; connections that exist go on.

    ```
    trimaran certs issue n1 n2 n3
    trimaran certs issue n2 --replace
    ```
    """
    from api.certificates import CA_CERT, NODE_CERT, NODE_KEY
    from api.certificates import issue as make
    from api.config import NODE_NAME

    if not nodes:
        raise UsageError("name the nodes: trimaran certs issue n1 n2 n3")
    for node in nodes:
        if not NODE_NAME.fullmatch(node):
            raise UsageError(f"{node!r}: a node's name has 1 to 32 letters, digits, - and _, a letter or digit first")
    places = make(directory, list(dict.fromkeys(nodes)), host, days=days, replace=replace)
    for place in places:
        say(f"{place.name}: copy {place} to that node alone, for example to /etc/trimaran/tls")
    say(f"""
Each node's --config then says where they are:
  [tls]
  ca = "/etc/trimaran/tls/{CA_CERT}"
  cert = "/etc/trimaran/tls/{NODE_CERT}"
  key = "/etc/trimaran/tls/{NODE_KEY}\"""")
    return Exit.DONE


@certs.command
def show(
    *paths: Annotated[Path, Parameter(help="Files, or directories with files named .crt; trimaran-certs if none.")],
    json: Json = False,
) -> int:
    """Show whose certificates they are, who has signed them, and when they end.

    ```
    trimaran certs show
    trimaran certs show /etc/trimaran/tls/node.crt --json
    ```

    Exit code 1: one of them has expired.
    """
    from api.certificates import describe

    found = describe(paths or (DIRECTORY,))
    if json:
        say_json({"certificates": msgspec.to_builtins(found)})
    else:
        columns = ("name", "also for", "expires", "days left", "signed by", "file")
        rows = [
            (
                *(each.name, ", ".join(host for host in each.hosts if host != each.name) or None, each.expires.date()),
                *(each.days_left, "itself" if each.signed_by == each.name else each.signed_by or "unknown", each.file),
            )
            for each in found
        ]
        say_table(columns, rows, numbers=("days left",))
    for each in found:
        if each.days_left * 86400 < EXPIRES_SOON_S:
            how = "has expired" if each.days_left < 0 else f"expires in {each.days_left} days"
            complain(f"trimaran: {each.file} {how}")
    return Exit.FAILED if any(each.days_left < 0 for each in found) else Exit.DONE


def _directory_flag(directory: Path) -> str:
    return "" if directory == DIRECTORY else f" --dir {directory}"
