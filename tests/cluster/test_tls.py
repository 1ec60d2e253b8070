"""A node's certificates: what is accepted, what is refused with which words, and how they are replaced."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from cluster.tls import EXPIRES_SOON_S, REMIND_S, Tls, TlsError, TlsFiles, certified_name
from tests.cluster.certs import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other")


@pytest.fixture(autouse=True)
def log() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as lines:
        yield lines  # type: ignore[misc]


def shake_hands(accepting: ssl.SSLContext, dialling: ssl.SSLContext) -> tuple[str, str, str]:
    """What each end learns of the other, and the serial number of the accepting one. Raises `ssl.SSLError`."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server, client = accepting.wrap_bio(there, back, server_side=True), dialling.wrap_bio(back, there)
    for side in (client, server) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"
    shown = client.getpeercert() or {}
    return certified_name(server.getpeercert() or {}), certified_name(shown), str(shown["serialNumber"])


def copy(source: str, target: str) -> None:
    """Replace a file as an operator would: at once."""
    Path(f"{target}.new").write_bytes(Path(source).read_bytes())
    os.chmod(f"{target}.new", 0o600)
    os.replace(f"{target}.new", target)


def test_both_ends_learn_the_others_name(authority: Authority) -> None:
    n1, n2 = authority.tls("n1"), authority.tls("n2")
    assert shake_hands(n1.accepting(), n2.dialling())[:2] == ("n2", "n1")


@pytest.mark.parametrize("trouble", ["of another authority", "of an older TLS", "without a certificate"])
def test_a_stranger_does_not_get_through(authority: Authority, other: Authority, trouble: str) -> None:
    n1, stranger = authority.tls("n1"), other.tls("n2").dialling()
    stranger.load_verify_locations(authority.files("n3").ca)
    if trouble == "of an older TLS":
        stranger = authority.tls("n2").dialling()
        stranger.maximum_version = stranger.minimum_version = ssl.TLSVersion.TLSv1_2
    elif trouble == "without a certificate":
        stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        stranger.check_hostname = False
        stranger.load_verify_locations(authority.files("n3").ca)
    with pytest.raises(ssl.SSLError):
        shake_hands(n1.accepting(), stranger)


def test_nobody_comes_back_with_a_ticket_instead_of_a_certificate(authority: Authority) -> None:
    assert authority.tls("n1").accepting().num_tickets == 0


def _broken(authority: Authority, other: Authority, trouble: str) -> TlsFiles:
    files = authority.files("n1")
    if trouble == "a missing key":
        os.unlink(files.key)
    elif trouble == "nonsense for a certificate":
        Path(files.cert).write_text("nonsense")
    elif trouble == "nonsense for an authority":
        Path(files.ca).write_text("nonsense")
    elif trouble == "the key of another":
        copy(authority.files("n2").key, files.key)
    elif trouble == "another authority":
        copy(other.files("n1").ca, files.ca)
    elif trouble == "another node":
        return authority.files("n2")
    elif trouble == "another spelling":
        return authority.files("N1")
    elif trouble == "an expired one":
        return authority.files("n1", days_ago=61)
    elif trouble == "one not valid yet":
        return authority.files("n1", days_ago=-2)
    elif trouble == "a locked key":
        key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
        locked = serialization.BestAvailableEncryption(b"x")
        Path(files.key).write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        )
    elif trouble == "the authority's own":
        ca = Path(files.ca).parent.parent
        return TlsFiles(files.ca, str(ca / "ca.crt"), str(ca / "ca.key"))
    return files


BROKEN = {
    "a missing key": "node.key cannot be read: No such file",
    "nonsense for a certificate": "node.crt or .*node.key is not in PEM form",
    "nonsense for an authority": "ca.crt holds no certificate in PEM form",
    "the key of another": "node.key is not the key of the certificate in .*node.crt",
    "another authority": "node.crt is not accepted with .*ca.crt: unable to get local issuer",
    "another node": "node.crt is the certificate of n2, but this is node n1",
    "another spelling": "is the certificate of N1, but this is node n1",
    "an expired one": "is not accepted with .*: certificate has expired",
    "one not valid yet": "is not accepted with .*: certificate is not yet valid",
    "a locked key": "node.key is locked with a password",
    "the authority's own": "is not accepted with .*: unsuitable certificate purpose",
}


@pytest.mark.parametrize("trouble", BROKEN)
def test_what_does_not_work_is_refused_from_the_start(authority: Authority, other: Authority, trouble: str) -> None:
    with pytest.raises(TlsError, match=BROKEN[trouble]):
        Tls(_broken(authority, other, trouble), "n1")


@pytest.mark.parametrize("trouble", [trouble for trouble in BROKEN if "another" not in trouble or "key" in trouble])
def test_what_does_not_work_later_is_told_once_and_changes_nothing(
    authority: Authority, other: Authority, log: list[dict[str, object]], trouble: str
) -> None:
    files = authority.files("n1")
    n1, n2 = Tls(files, "n1"), authority.tls("n2")
    serial = shake_hands(n1.accepting(), n2.dialling())[2]
    broken = _broken(authority, other, trouble)
    for source, target in zip((broken.ca, broken.cert, broken.key), (files.ca, files.cert, files.key), strict=True):
        if os.path.exists(source) and source != target:
            copy(source, target)
    for _ in range(3):
        assert shake_hands(n1.accepting(), n2.dialling())[2] == serial
    told = [line for line in log if line["log_level"] == "error"]
    assert [line["event"] for line in told] == ["new certificates cannot be used, the old ones stay in use"]
    authority.files("n1")
    assert shake_hands(n1.accepting(), n2.dialling())[2] != serial, "good ones are taken up again"


def test_files_replaced_one_by_one_are_taken_up_when_they_fit(
    authority: Authority, log: list[dict[str, object]]
) -> None:
    files = authority.files("n1")
    spare = TlsFiles(*(f"{path}.old" for path in (files.ca, files.cert, files.key)))
    for source, target in ((files.ca, spare.ca), (files.cert, spare.cert), (files.key, spare.key)):
        copy(source, target)
    n1, n2 = Tls(spare, "n1"), authority.tls("n2")
    serial = shake_hands(n1.accepting(), n2.dialling())[2]
    authority.files("n1")
    copy(files.cert, spare.cert)
    assert shake_hands(n1.accepting(), n2.dialling())[2] == serial
    copy(files.key, spare.key)
    assert shake_hands(n1.accepting(), n2.dialling())[2] != serial
    assert [line["log_level"] for line in log] == ["error", "info"]


def test_an_authority_is_replaced_step_by_step(authority: Authority, other: Authority) -> None:
    old, new = authority.files("n1"), other.files("n1")
    bundle = Path(old.ca).read_bytes() + Path(new.ca).read_bytes()
    nodes = {}
    for name in ("n1", "n2"):
        files = authority.files(name)
        nodes[name] = Tls(files, name), files

    def everybody_talks() -> bool:
        pairs = (("n1", "n2"), ("n2", "n1"))
        return all(shake_hands(nodes[a][0].accepting(), nodes[b][0].dialling())[:2] == (b, a) for a, b in pairs)

    for _, files in nodes.values():  # first, everybody believes both
        Path(files.ca).write_bytes(bundle)
        assert everybody_talks()
    for name, (_, files) in nodes.items():  # then, everybody shows the new one
        made = other.files(name)
        copy(made.key, files.key)
        copy(made.cert, files.cert)
        assert everybody_talks()
    for _, files in nodes.values():  # at last, nobody believes the old one
        copy(new.ca, files.ca)
        assert everybody_talks()
    with pytest.raises(ssl.SSLError):
        shake_hands(nodes["n1"][0].accepting(), authority.tls("n2").dialling())


def test_the_end_is_told_of_once_a_day_from_a_month_before(authority: Authority, log: list[dict[str, object]]) -> None:
    now_s = ssl.cert_time_to_seconds("Nov 24 12:00:00 2026 GMT")
    n1 = Tls(authority.files("n1"), "n1", lambda: now_s)
    expires_s = n1._loaded.expires_s
    now_s = expires_s - EXPIRES_SOON_S - 1
    n1.refresh()
    assert n1.warning() is None
    assert log == []
    now_s = expires_s - EXPIRES_SOON_S + 1
    n1.refresh()
    n1.refresh()
    assert "expires in 29 days" in str(n1.warning())
    assert [line["remedy"] for line in log] == ["trimaran certs issue n1 --replace"]
    now_s += REMIND_S + 1
    n1.refresh()
    assert len(log) == 2
    now_s = expires_s + 1
    assert "has expired" in str(n1.warning())


def test_a_key_that_everybody_may_read_is_told_of(authority: Authority, log: list[dict[str, object]]) -> None:
    files = authority.files("n1")
    os.chmod(files.key, 0o644)
    Tls(files, "n1")
    assert [line["remedy"] for line in log] == [f"chmod 600 {files.key}"]


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        (((("commonName", "n1"),),), "n1"),
        (((("organizationName", "n1"),), (("commonName", "n2"),)), "n2"),
        (((("commonName", "n1"),), (("commonName", "n2"),)), ""),
        ((), ""),
    ],
)
def test_a_certificate_speaks_for_its_one_common_name(subject: object, name: str) -> None:
    assert certified_name({"subject": subject, "subjectAltName": (("DNS", "n3"),)}) == name
