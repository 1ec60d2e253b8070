"""The process of a gateway: HTTP in, operations out. Keeps nothing that another gateway would miss."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import msgspec
import structlog
import uvloop

from api.config import Address, Config
from api.http import HttpServer
from api.metrics import hand_in
from api.request import HttpSettings
from api.serve import GatewayConfig, seal_key, tls_files
from cluster.client import Client
from cluster.process import allow_descriptors, configure_logging, die_with, fail, fail_on_surprise, forever
from cluster.tls import Tls, TlsError

OWN_DESCRIPTORS = 64
"""Files and sockets that a gateway needs beside its clients' connections."""

_log = structlog.get_logger()


async def run(config: Config, gateway: GatewayConfig) -> None:
    """Serve until SIGTERM. Raises `OSError` when the address cannot be had."""
    loop = asyncio.get_running_loop()
    fail_on_surprise(loop)
    files = tls_files(config)
    tls = Tls(files, config.node) if files is not None else None
    client = Client(config.node, f"unix:{gateway.socket}", tls)
    await client.start()
    connections_max, connections_per_address_max = _connections_max(config)
    server = HttpServer(
        client,
        HttpSettings(
            config.request_timeout_ms,
            config.header_timeout_ms,
            config.body_timeout_ms,
            connections_max,
            config.request_bytes_max,
            public_url=config.public_url,
            trust_forwarded=config.trust_forwarded,
            insecure_listen=config.insecure_listen,
            seal_key=seal_key(config),
            connections_per_address_max=connections_per_address_max,
            gateway=f"gateway-{gateway.number}",
        ),
    )
    address = Address.parse(config.http)
    await server.start(address.host, address.port)
    telling = forever(hand_in(client, server.meter)) if config.gateways > 1 else None
    _log.info("gateway started", http=config.http)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    await server.close()
    if telling is not None:
        telling.cancel()
    await client.close()
    _log.info("gateway stopped")


def _connections_max(config: Config) -> tuple[int, int]:
    """How many in all and of one address: as many as are set, or as the system has descriptors for.

    More would be cut off without an answer. Those of one address are then fewer in proportion.
    """
    per_address = config.connections_per_address_max or max(1, config.connections_max // 2)
    most = max(1, allow_descriptors(config.connections_max + OWN_DESCRIPTORS) - OWN_DESCRIPTORS)
    if most < config.connections_max:
        per_address = max(1, per_address * most // config.connections_max)
        _log.warning(
            "fewer client connections than are set",
            connections_max=most,
            connections_per_address_max=per_address,
            cause="the limit of open files",
            remedy=f"ulimit -n {config.connections_max + OWN_DESCRIPTORS}, or LimitNOFILE in a systemd unit",
        )
    return most, per_address


def main() -> None:
    """Run the gateway that the first argument describes, as JSON."""
    gateway = msgspec.json.decode(sys.argv[1], type=GatewayConfig)
    die_with(gateway.parent)
    config = Config.from_json(gateway.config)
    configure_logging(config.log_format, config.log_level, node=config.node, process="gateway")
    try:
        uvloop.run(run(config, gateway))
    except OSError as error:
        _log.critical("cannot listen", http=config.http, cause=error.strerror or str(error))
        os._exit(1)
    except TlsError as error:
        _log.critical("cannot use the certificates", cause=str(error))
        os._exit(1)
    except Exception as error:
        fail("gateway failed", error)


if __name__ == "__main__":
    main()
