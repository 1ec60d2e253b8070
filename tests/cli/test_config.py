"""Configuration: which layer wins, and what is said when it is wrong."""

from pathlib import Path
from typing import Any

import pytest

from api.config import FIELDS, Address, Config, ConfigError, load


def test_defaults_make_a_single_node_on_loopback() -> None:
    config = load({})
    assert (config.node, config.http, config.raft) == ("n1", "127.0.0.1:7700", "127.0.0.1:7800")
    assert config.members == {"n1": "127.0.0.1:7800"}


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "trimaran.toml"
    file.write_text('heartbeat_ms = 20\nelection_min_ms = 700\nlog_level = "debug"\nrequest_timeout_ms = 9000\n')
    environment = {"TRIMARAN_HEARTBEAT_MS": "30", "TRIMARAN_ELECTION_MIN_MS": "800", "TRIMARAN_LOG_LEVEL": "error"}
    config = load({"heartbeat_ms": "40"}, environment, file)
    assert (config.heartbeat_ms, config.election_min_ms, config.log_level) == (40, 800, "error")
    assert (config.request_timeout_ms, config.election_max_ms) == (9000, 1200)


def test_certificates_may_stand_in_a_table_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "trimaran.toml"
    file.write_text(
        'raft = "10.0.0.1:7800"\n[tls]\nca = "/tls/ca.crt"\ncert = "/tls/node.crt"\nkey = "/tls/node.key"\n'
    )
    config = load({"tls_key": "/other/node.key"}, {}, file)
    assert (config.tls_ca, config.tls_cert) == (Path("/tls/ca.crt"), Path("/tls/node.crt"))
    assert config.tls_key == Path("/other/node.key"), "a flag beats the file"
    assert Config.from_json(config.to_json()) == config
    file.write_text('[tls]\ncertificate = "x"\n')
    with pytest.raises(ConfigError, match="tls_certificate in .* is no setting"):
        load({}, {}, file)


def test_variables_that_are_no_settings_are_left_alone() -> None:
    assert load({}, {"TRIMARAN_PORT": "tcp://10.0.0.1:7700", "TRIMARAN_URL": "http://x", "HEARTBEAT_MS": "1"}) == load(
        {}
    )


@pytest.mark.parametrize(
    ("given", "field", "expected"),
    [
        ({"store_bytes_max": "8 GiB"}, "store_bytes_max", 8 * 2**30),
        ({"request_bytes_max": "512KiB"}, "request_bytes_max", 512 * 2**10),
        ({"data": "/var/lib/trimaran"}, "data", Path("/var/lib/trimaran")),
        ({"peers": "n1=127.0.0.1:7801, n2=127.0.0.1:7802"}, "peers", {"n1": "127.0.0.1:7801", "n2": "127.0.0.1:7802"}),
        ({"peers": "n1=127.0.0.1:7801,n2=127.0.0.1:7802"}, "raft", "127.0.0.1:7801"),
        ({"http": "[::1]:7700"}, "http", "[::1]:7700"),
        (
            {"raft": "0.0.0.0:7801", "peers": "n1=10.0.0.1:7801,n2=10.0.0.2:7801", "tls_insecure": "true"},
            "raft",
            "0.0.0.0:7801",
        ),
    ],
)
def test_what_is_understood(given: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(load(given), field) == expected


THREE = "n1=127.0.0.1:7800,n2=127.0.0.1:7801,n3=127.0.0.1:7802"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"node": "n4", "peers": THREE}, "--node n4 is not among --peers n1, n2, n3"),
        ({"node": "-x"}, "--node '-x': 1 to 32 letters"),
        ({"raft": "127.0.0.1:9", "peers": THREE}, "--raft 127.0.0.1:9 is not the address of n1 in --peers"),
        ({"peers": "n1=127.0.0.1:7800,n2=127.0.0.1:7800"}, "--peers n1 and n2 have the same address"),
        ({"peers": "n1=127.0.0.1:7800,n1=127.0.0.1:7801"}, "'n1=127.0.0.1:7801' is given twice"),
        ({"peers": "127.0.0.1:7800"}, "is not NAME=HOST:PORT"),
        (
            {"peers": ",".join(f"n{n}=127.0.0.1:{7800 + n}" for n in range(1, 10))},
            "names 9 nodes, but a cluster",
        ),
        ({"http": "127.0.0.1:7800"}, "--http 127.0.0.1:7800 and --raft 127.0.0.1:7800 use the same port"),
        ({"raft": "box:7800"}, "--raft box:7800 is another machine, or can be reached from one"),
        ({"raft": "0.0.0.0:7800", "insecure_listen": "true"}, "`trimaran certs init` and `trimaran certs issue n1`"),
        ({"peers": "n1=127.0.0.1:7800,n2=10.0.0.2:7800"}, "--peers n2 10.0.0.2:7800 is another machine"),
        ({"tls_ca": "ca.crt", "tls_key": "node.key"}, "--tls-ca, --tls-cert, --tls-key belong together: --tls-cert is"),
        ({"tls_ca": "ca.crt", "tls_insecure": "true"}, "--tls-ca and --tls-insecure contradict each other"),
        ({"http": "localhost"}, "HOST:PORT is expected"),
        ({"http": "::1:7700"}, "write an IPv6 host in brackets"),
        ({"http": "localhost:70000"}, "HOST:PORT is expected"),
        ({"heartbeat_ms": "200"}, "--election-min-ms 600 is less than 4 times --heartbeat-ms 200: use at least 800"),
        ({"election_max_ms": "600"}, "--election-max-ms 600 must be above --election-min-ms 600"),
        ({"request_bytes_max": "17 MiB"}, "is above what one operation may carry"),
        ({"room_reserve_bytes": "128 GiB", "store_bytes_max": "255 GiB"}, "is more than half of --store-bytes-max"),
        ({"heartbeat_ms": "often"}, "--heartbeat-ms: 'often' is not allowed: Expected int"),
        ({"gateways": "0"}, "--gateways: '0' is not allowed: Expected int >= 1"),
        ({"log_format": "xml"}, "choose from json, console"),
        ({"data": ""}, "expected a path"),
        ({"public_url": "queue.example.com"}, "--public-url 'queue.example.com' is no URL"),
        ({"public_url": "https://a/?x"}, "http(s)://HOST[:PORT][/PATH] is expected"),
    ],
)
def test_what_is_refused_and_what_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(given)
    assert said in str(refusal.value)


def test_an_error_names_where_the_value_came_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TRIMARAN_GATEWAYS: 'many'"):
        load({}, {"TRIMARAN_GATEWAYS": "many"})
    file = tmp_path / "trimaran.toml"
    file.write_text("gateways = -1\n")
    with pytest.raises(ConfigError, match=r"gateways in .*trimaran.toml: -1"):
        load({}, {}, file)


@pytest.mark.parametrize(
    ("text", "said"),
    [("heartbeat = 1\n", "heartbeat in .* is no setting"), ("{", "is no TOML"), (None, "cannot be read")],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "trimaran.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load({}, {}, file)


def test_a_child_process_gets_the_same_settings() -> None:
    told = {"public_url": "https://queue.example.com:8443/sqs", "trust_forwarded": True}
    config = load({"peers": THREE, "data": "/x/y", "store_bytes_max": "1 GiB"} | told)
    assert Config.from_json(config.to_json()) == config
    with pytest.raises(ConfigError, match="damaged"):
        Config.from_json(b'{"node": 1}')


def test_every_setting_is_described() -> None:
    undescribed = [name for name, field in FIELDS.items() if not field.type.__metadata__[0].description]
    assert not undescribed


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.1:1", True), ("127.8.8.8:1", True), ("[::1]:1", True), ("localhost:1", True)]
    + [("0.0.0.0:1", False), ("[::]:1", False), ("10.0.0.1:1", False), ("localhost.example:1", False)],
)
def test_what_counts_as_loopback(text: str, loopback: bool) -> None:
    assert Address.parse(text).is_loopback is loopback
    assert str(Address.parse(text)) == text
