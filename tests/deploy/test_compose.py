"""The compose file says what the specification allows, and its command lines start a cluster."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
import yaml

from api.config import FIELDS, load
from tests.processes.nodes import eventually, free_ports

DEPLOY = Path(__file__).parents[2] / "deploy" / "compose"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CERTS: dict[str, Any] = COMPOSE["services"]["certs"]
SERVICES: dict[str, dict[str, Any]] = {
    name: service for name, service in COMPOSE["services"].items() if service is not CERTS
}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def command_line(service: dict[str, Any]) -> list[str]:
    """What the container runs: the image's entry point and the service's command."""
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert entry is not None
    return [*json.loads(entry[1]), *service["command"]]


def environment(service: dict[str, Any]) -> dict[str, str]:
    """The image's variables and the service's."""
    lines = re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)
    pairs = dict(pair.split("=", 1) for line in lines for pair in shlex.split(line))
    return pairs | service["environment"]


def test_the_file_is_valid_by_the_compose_specification() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    broken = COMPOSE | {"services": {"n1": COMPOSE["services"]["n1"] | {"restart_always": True}}}
    assert list(validator.iter_errors(broken)), "the schema refuses nothing"


def test_the_nodes_differ_only_in_name_port_and_volume() -> None:
    own = {"command", "ports", "volumes"}
    templates = [{key: value for key, value in service.items() if key not in own} for service in SERVICES.values()]
    assert templates[1:] == templates[:-1]
    for number, (name, service) in enumerate(SERVICES.items()):
        files = ("--tls-cert", f"/certs/{name}/node.crt", "--tls-key", f"/certs/{name}/node.key")
        assert service["command"] == ["serve", "--node", name, *files]
        assert service["ports"] == [f"127.0.0.1:{7700 + number}:7700"], "published to this machine only"
        assert service["volumes"] == [f"{name}:/data", "certs:/certs:ro"], "no node may write certificates"
        assert name in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_a_setting_and_the_whole_is_accepted(name: str) -> None:
    variables = environment(SERVICES[name])
    assert {key.removeprefix("TRIMARAN_").lower() for key in variables if key.startswith("TRIMARAN_")} <= FIELDS.keys()
    words = SERVICES[name]["command"][1:]
    flags = {flag.removeprefix("--").replace("-", "_"): value for flag, value in zip(*[iter(words)] * 2, strict=True)}
    config = load(flags, variables)
    assert not config.tls_insecure
    assert not config.insecure_listen
    assert list(config.peers) == list(SERVICES)
    assert config.data == Path("/data")


def test_what_the_image_needs_is_sent_to_the_build() -> None:
    copied = {name for line in re.findall(r"^COPY ([^-].*)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]}
    sent = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    assert copied == sent
    assert all((DEPLOY.parents[1] / name).exists() for name in copied)
    assert "\nUSER trimaran\n" in DOCKERFILE


def make_certificates(place: Path) -> None:
    """What the service `certs` does, there."""
    place.mkdir(exist_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        [*CERTS["entrypoint"], *CERTS["command"]], cwd=place, env=os.environ | {"PATH": path}, check=True, timeout=60
    )


def test_certificates_are_made_once(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    made = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert {path.parent.name for path in made if path.name == "node.key"} == set(SERVICES)
    make_certificates(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == made


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Every service as a process of this machine, with addresses on loopback; yields the HTTP port of each."""
    ports = free_ports(2 * len(SERVICES))
    http, raft = dict(zip(SERVICES, ports, strict=False)), dict(zip(SERVICES, ports[len(SERVICES) :], strict=True))
    processes = []
    make_certificates(tmp_path / "certs")
    try:
        for name, service in SERVICES.items():
            variables = environment(service) | {
                "TRIMARAN_DATA": str(tmp_path / name),
                "TRIMARAN_HTTP": f"127.0.0.1:{http[name]}",
                "TRIMARAN_RAFT": f"127.0.0.1:{raft[name]}",
                "TRIMARAN_TLS_CA": f"{tmp_path}/certs/ca.crt",
            }
            for peer, port in raft.items():
                variables["TRIMARAN_PEERS"] = variables["TRIMARAN_PEERS"].replace(
                    f"{peer}={peer}:7800", f"{peer}=127.0.0.1:{port}"
                )
            variables.pop("PATH")
            program, *arguments = command_line(service)
            assert program == "trimaran"
            arguments = [word.replace("/certs", f"{tmp_path}/certs") for word in arguments]
            argv = [sys.executable, "-m", "api.cli", *arguments]
            log = (tmp_path / f"{name}.log").open("wb")
            with log:
                processes.append(
                    subprocess.Popen(argv, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True)
                )
        yield http
    finally:
        for process in processes:
            process.kill()  # its children end with it
            process.wait()


def health(service: dict[str, Any], port: int) -> bool:
    """Whether the service's own health check is content."""
    kind, program, flag, code = service["healthcheck"]["test"]
    assert (kind, program, flag) == ("CMD", "python", "-c")
    try:
        exec(compile(code.replace("7700", str(port)), "healthcheck", "exec"), {})
    except (urllib.error.URLError, OSError):
        return False
    return True


@pytest.mark.processes
async def test_the_command_lines_start_a_cluster_that_its_health_checks_accept(containers: dict[str, int]) -> None:
    async def healthy() -> bool:
        checks = [asyncio.to_thread(health, SERVICES[name], port) for name, port in containers.items()]
        return all(await asyncio.gather(*checks))

    await eventually(healthy, "every service is healthy")
    urls = [f"http://127.0.0.1:{port}" for port in containers.values()]
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{urls[0]}/v1/keys", json={"roles": ["admin"]}) as answer:
            assert answer.status == 201
            made = await answer.json()
        key = {"Authorization": aiohttp.encode_basic_auth(made["id"], made["secret"])}
        for url in urls:  # each has found the seal key beside its certificate
            async with http.get(f"{url}/v1/keys", headers=key) as answer:
                assert answer.status == 200
