"""Commands that start nodes. The flags of `serve` are the settings of `api.config`, with their descriptions."""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from api.config import FIELDS, ConfigError, flag, load
from api.console import UsageError


def serve(**flags: Any) -> int:
    """Run one node of a cluster, or a single node of its own.

    A flag beats its environment variable (`TRIMARAN_HEARTBEAT_MS`), which beats the file named by `--config`.

    ```
    trimaran serve --data ./data
    trimaran serve --node n1 --data /var/lib/trimaran --http 127.0.0.1:7700 --raft 127.0.0.1:7800 \\
        --peers n1=127.0.0.1:7800,n2=127.0.0.1:7801,n3=127.0.0.1:7802
    ```
    """
    from api.serve import serve as run  # what starts processes is not needed to print help

    file = flags.pop("config", None)
    given = {name: value for name, value in flags.items() if value not in (None, False)}
    try:
        config = load(given, os.environ, file)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    return run(config)


def _signature() -> inspect.Signature:
    """One keyword for each setting, so that help lists them all."""
    parameters = [
        inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, Parameter(help="A TOML file of settings.")],
        )
    ]
    for name, field in FIELDS.items():
        meta = field.type.__metadata__[0]
        kind = bool if field.default is False else str | None
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if kind is bool else None,
                annotation=Annotated[kind, Parameter(name=flag(name), help=meta.description)],
            )
        )
    return inspect.Signature(parameters, return_annotation=int)


serve.__signature__ = _signature()  # type: ignore[attr-defined]
serve.__annotations__ = {p.name: p.annotation for p in _signature().parameters.values()} | {"return": int}


def local(
    *,
    nodes: Annotated[int, Parameter(help="How many nodes: 1, 3, 5 or 7.")] = 3,
    data: Annotated[Path, Parameter(help="Directory for the nodes' data.")] = Path("trimaran-data"),
    http_port: Annotated[int, Parameter(help="HTTP port of the first node; the others follow.")] = 7700,
    fresh: Annotated[bool, Parameter(help="Begin with nothing: forget what an earlier run has kept.")] = False,
    tls: Annotated[bool, Parameter(help="Let the nodes talk over TLS, with certificates made for it.")] = False,
) -> int:
    """Run a whole cluster on this machine, each node with its own data, until Ctrl-C.

    ```
    trimaran local
    trimaran local --nodes 1 --data /tmp/try --http-port 9000
    ```
    """
    from api.local import run_local

    if nodes not in (1, 3, 5, 7):
        raise UsageError(f"--nodes {nodes}: a cluster has 1, 3, 5 or 7 nodes, so that a majority survives a loss")
    if not 1 <= http_port <= 65_000:
        raise UsageError(f"--http-port {http_port}: choose from 1 to 65000")
    return asyncio.run(run_local(nodes, data, http_port, fresh=fresh, tls=tls))
