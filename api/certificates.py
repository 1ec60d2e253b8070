"""Certificates for nodes: an authority of one's own, and what it signs.

DIRECTORY/ca.key             signs certificates; needed only for that, so it is best kept off the nodes
DIRECTORY/ca.crt             what every node believes
DIRECTORY/NODE/ca.crt        what the node NODE needs: a copy of that,
DIRECTORY/NODE/node.crt      its certificate, whose common name is NODE,
DIRECTORY/NODE/node.key      and its key
DIRECTORY/seal.key           what access keys are sealed with (`api.sealing`), the same for all nodes:
DIRECTORY/NODE/seal.key      a copy of that
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from api.console import CommandError
from api.sealing import SEAL_KEY
from api.sealing import make as make_seal_key

CA_DAYS = 3650
"""An authority outlives many certificates: to replace it, every node must be visited twice."""
NODE_DAYS = 365
"""A node's certificate is replaced without a restart, once a year."""
CLOCK_SKEW = timedelta(days=1)
"""Certificates are valid from so long before they are made: clocks of machines differ."""
CA_KEY, CA_CERT, NODE_CERT, NODE_KEY = "ca.key", "ca.crt", "node.crt", "node.key"

_USAGE = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


class CertificateError(CommandError):
    """What was asked for cannot be done."""


class Described(msgspec.Struct, frozen=True):
    """A certificate in words. `signed_by` is the authority that signed it, None if it is not among those looked at."""

    name: str
    authority: bool
    hosts: list[str]
    expires: datetime
    days_left: int
    signed_by: str | None
    file: str


def make_authority(directory: Path, *, days: int = CA_DAYS, now: datetime | None = None) -> Path:
    """Make a new authority in `directory`. Returns its certificate's path. Raises `CertificateError`."""
    for name in (CA_KEY, CA_CERT):
        if (directory / name).exists():
            raise CertificateError(
                f"{directory / name} exists: another authority would make its certificates worthless; "
                "choose another directory"
            )
    key, begins = ec.generate_private_key(ec.SECP256R1()), now or datetime.now(UTC)
    # Two authorities must not share a name, for a while both are believed: it is how the right one is found.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Trimaran CA {secrets.token_hex(4)}")])
    certificate = (
        _builder(subject, subject, key.public_key(), begins, begins + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(directory, {CA_KEY: _pem(key), CA_CERT: _pem(certificate)})
    return directory / CA_CERT


def issue(
    directory: Path,
    nodes: Sequence[str],
    hosts: Sequence[str] = (),
    *,
    days: int = NODE_DAYS,
    replace: bool = False,
    now: datetime | None = None,
) -> list[Path]:
    """Sign certificates for these nodes with the authority in `directory`. Returns the directory of each one's files.

    `hosts` are further names or addresses in them, for other uses. Raises `CertificateError`.
    """
    ca, ca_key = _authority(directory)
    alternatives, begins = [_alternative(host) for host in hosts], now or datetime.now(UTC)
    if ca.not_valid_after_utc <= begins:
        raise CertificateError(f"the authority in {directory} has expired: make another one in another directory")
    places = [directory / node for node in nodes]
    there = [place / NODE_CERT for place in places if (place / NODE_CERT).exists()]
    if there and not replace:
        raise CertificateError(f"{there[0]} exists: to put a new one in its place, add --replace")
    ends = min(begins + timedelta(days=days), ca.not_valid_after_utc)
    try:
        make_seal_key(directory / SEAL_KEY)
        shared = {name: (directory / name).read_bytes() for name in (CA_CERT, SEAL_KEY)}
    except OSError as error:
        raise CertificateError(f"{error.filename or directory}: {error.strerror}") from error
    for place in places:
        key, certificate = _sign(place.name, alternatives, ca, ca_key, begins, ends)
        _write(place, {NODE_KEY: _pem(key), NODE_CERT: _pem(certificate), **shared})
    return places


def describe(paths: Sequence[Path], *, now: datetime | None = None) -> list[Described]:
    """The certificates in these files and directories, each once. Raises `CertificateError`."""
    found: dict[x509.Certificate, Path] = {}
    for path in paths:
        files = sorted(path.rglob("*.crt")) if path.is_dir() else [path]
        if not files:
            raise CertificateError(f"{path} holds no certificates: make some with `trimaran certs init`")
        for file in files:
            for certificate in _read(file):
                found.setdefault(certificate, file)
    authorities, today = [each for each in found if _is_authority(each)], now or datetime.now(UTC)
    return [
        Described(
            _common_name(each),
            _is_authority(each),
            _hosts(each),
            each.not_valid_after_utc,
            (each.not_valid_after_utc - today).days,
            next((_common_name(authority) for authority in authorities if _has_signed(authority, each)), None),
            str(file),
        )
        for each, file in found.items()
    ]


def _sign(
    node: str,
    alternatives: list[x509.GeneralName],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    begins: datetime,
    ends: datetime,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), begins, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(node), *alternatives]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return key, certificate


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    for name in (CA_CERT, CA_KEY):
        if not (directory / name).exists():
            raise CertificateError(f"{directory / name} does not exist: make an authority with `trimaran certs init`")
    certificate = _read(directory / CA_CERT)[0]
    try:
        key = serialization.load_pem_private_key((directory / CA_KEY).read_bytes(), None)
    except OSError as error:
        raise CertificateError(f"{directory / CA_KEY} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{directory / CA_KEY} is no key in PEM form without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificateError(f"{directory / CA_KEY} is not the key of {directory / CA_CERT}")
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - CLOCK_SKEW)
        .not_valid_after(ends)
    )


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in allowed for name in _USAGE})


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise CertificateError(f"--host {host!r} is neither an address nor a name in ASCII") from error


def _pem(thing: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    return thing.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(directory: Path, contents: dict[str, bytes]) -> None:
    """Each file is whole or not there; what is replaced is replaced at once, keys first."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in contents.items():
            temporary = directory / f"{name}.new"
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(directory / name)
    except OSError as error:
        raise CertificateError(f"{error.filename or directory} cannot be written: {error.strerror}") from error


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CertificateError(f"{path} holds no certificate in PEM form") from error


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def _extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and bool(constraints.ca)


def _hosts(certificate: x509.Certificate) -> list[str]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    return [] if names is None else [str(name.value) for name in names]


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
