"""AWS Signature Version 4: who signed a request, and whether they did. Pure: the time is an argument.

    canonical request = method \n path \n query \n headers \n names of signed headers \n SHA-256 of the body
    string to sign    = algorithm \n time \n scope \n SHA-256 of the canonical request
    signature         = HMAC chain from the secret over date, region, service and "aws4_request", then the string

After AWS's "Create a signed AWS API request". `read` finds what a request claims, in its Authorization header or, of a
presigned URL, in its query; `verify` proves it with the secret of the claimed key. The body's digest is always computed
from the body that came, so an unsigned payload never passes. A session token is signed along and not looked at:
Trimaran's keys have none.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from api.aws.errors import AwsError, common

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=15)
"""How far the signer's clock may be off: AWS's own window, and the time within which a request could be replayed."""
EXPIRES_S_MAX = 7 * 24 * 60 * 60
"""The longest a presigned URL may be good for, as with AWS."""

_STAMP = "%Y%m%dT%H%M%SZ"
_DATE_CHARACTERS = 8
_STAMP_SHAPE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_MUST_BE_SIGNED = ("host", "x-amz-target")
"""Without them a signature could be carried to another server, or to another action."""
_PARTS = ("Credential", "Signature", "SignedHeaders")


class HttpRequest(NamedTuple):
    """A request as it came over the wire: `target` is path and query, undecoded; header names in any case."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def named(self) -> dict[str, list[str]]:
        """The headers by their names in lower case, in the order in which they came."""
        values: dict[str, list[str]] = {}
        for name, value in self.headers:
            values.setdefault(name.lower(), []).append(value)
        return values


class Claim(NamedTuple):
    """What a request says of its signature. `expires_s` is None but for a presigned URL."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: list[str]
    signature: str
    at: datetime
    expires_s: int | None

    @property
    def scope(self) -> str:
        """What the signing key is bound to."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


# --- what is claimed --------------------------------------------------------------------------------------------------


def read(request: HttpRequest) -> Claim | None:
    """What the request claims, None when it is not signed at all. Raises `AwsError`."""
    headers = request.named()
    if "authorization" in headers:
        return _read_header(headers)
    _, _, query = request.target.partition("?")
    if "X-Amz-Algorithm=" in query or "X-Amz-Signature=" in query:
        return _read_query(dict(_pairs(query)))
    return None


def _read_header(headers: Mapping[str, Sequence[str]]) -> Claim:
    algorithm, _, rest = headers["authorization"][0].strip().partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{algorithm[:40]}'.")
    given: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        given[name] = value
    missing = [f"Authorization header requires '{name}' parameter." for name in _PARTS if not given.get(name)]
    (stamp, *_) = headers.get("x-amz-date") or headers.get("date") or (None,)
    if stamp is None:
        missing.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if missing or stamp is None:
        raise _incomplete(" ".join(missing))
    return _claim(given["Credential"], given["SignedHeaders"], given["Signature"], _at(stamp), None)


def _read_query(given: dict[str, str]) -> Claim:
    if given.get("X-Amz-Algorithm") != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{given.get('X-Amz-Algorithm', '')[:40]}'.")
    names = [f"X-Amz-{name}" for name in (*_PARTS, "Date")]
    missing = [f"AWS query-string parameters must include '{name}'." for name in names if not given.get(name)]
    if missing:
        raise _incomplete(" ".join(missing))
    expires = given.get("X-Amz-Expires", "900")
    if not re.fullmatch(r"\d{1,9}", expires, re.ASCII) or not 0 < int(expires) <= EXPIRES_S_MAX:
        raise _incomplete(f"X-Amz-Expires must be a number of seconds from 1 to {EXPIRES_S_MAX}, that is a week.")
    credential, signature, signed, stamp = (given[name] for name in names)
    return _claim(credential, signed, signature, _at(stamp), int(expires))


def _claim(credential: str, signed_headers: str, signature: str, at: datetime, expires_s: int | None) -> Claim:
    scope = credential.split("/")
    if len(scope) != 5 or not all(scope) or not credential.isascii():
        elements = "keyid/date/region/service/term"
        raise _incomplete(f"Credential must have exactly 5 slash-delimited elements, e.g. {elements}.")
    access_key_id, date, region, service, terminator = scope
    if terminator != "aws4_request":
        raise _mismatch("Credential should be scoped with a valid terminator: 'aws4_request'.")
    stamp = _stamp(at)
    if date != stamp[:_DATE_CHARACTERS]:
        raise _mismatch(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{date[:16]}' != '{stamp[:_DATE_CHARACTERS]}', from '{stamp}'."
        )
    return Claim(access_key_id, date, region, service, signed_headers.split(";"), signature, at, expires_s)


@lru_cache(maxsize=256)  # a second's requests have the same
def _at(stamp: str) -> datetime:
    try:
        if _STAMP_SHAPE.fullmatch(stamp):
            return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
        return parsedate_to_datetime(stamp).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _incomplete("Date must be in ISO-8601 'basic format', such as 20111231T235959Z.") from None


@lru_cache(maxsize=256)
def _stamp(at: datetime) -> str:
    return at.strftime(_STAMP)


# --- whether it is true -----------------------------------------------------------------------------------------------


def verify(claim: Claim, request: HttpRequest, secret: str, service: str, now: datetime) -> None:
    """Check the claim against the `secret` of its key, for a request to `service`, at `now`. Raises `AwsError`."""
    check_service(claim, service)
    _check_time(claim, now)
    headers = request.named()
    for name in _MUST_BE_SIGNED:
        if name in headers and name not in claim.signed_headers:
            raise _mismatch(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")
    signature = _signature(claim, request, headers, secret)
    if not hmac.compare_digest(signature.encode(), claim.signature.encode("utf-8", "replace")):
        raise _mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        )


def check_service(claim: Claim, service: str) -> None:
    """Check that a request to `service` was signed for it. Raises `AwsError`."""
    if claim.service != service:
        raise _mismatch(f"Credential should be scoped to correct service: '{service}'.")


def _check_time(claim: Claim, now: datetime) -> None:
    """A claim is good from 15 minutes before it was made until 15 minutes after, or until its URL expires."""
    stamp = _stamp(claim.at)
    if claim.at - now > SKEW:
        earliest, present = (now + SKEW).strftime(_STAMP), now.strftime(_STAMP)
        raise _mismatch(f"Signature not yet current: {stamp} is still later than {earliest} ({present} + 15 min.)")
    if claim.expires_s is not None and now - claim.at > timedelta(seconds=claim.expires_s):
        raise common("RequestExpiredException", "Request has expired.")
    if claim.expires_s is None and now - claim.at > SKEW:
        latest, present = (now - SKEW).strftime(_STAMP), now.strftime(_STAMP)
        raise _mismatch(f"Signature expired: {stamp} is now earlier than {latest} ({present} - 15 min.)")


def _signature(claim: Claim, request: HttpRequest, headers: Mapping[str, Sequence[str]], secret: str) -> str:
    canonical = _canonical_request(request, headers, claim.signed_headers)
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    told = "\n".join((ALGORITHM, _stamp(claim.at), claim.scope, digest))
    key = _signing_key(secret, claim.date, claim.region, claim.service)
    return hmac.digest(key, told.encode(), "sha256").hex()


@lru_cache(maxsize=256)  # a client's key serves it for a day
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _canonical_request(request: HttpRequest, headers: Mapping[str, Sequence[str]], signed: Sequence[str]) -> str:
    """The request as both sides write it down to sign it."""
    path, _, query = request.target.partition("?")
    if not path.startswith("/"):  # as proxies are asked: http://host/path
        path = "/" + path.partition("://")[2].partition("/")[2]
    return "\n".join(
        (
            request.method.upper(),
            _canonical_path(path),
            _canonical_query(query),
            *(f"{name}:{','.join([' '.join(value.split()) for value in headers.get(name, ())])}" for name in signed),
            "",
            ";".join(signed),
            hashlib.sha256(request.body).hexdigest(),
        )
    )


def _canonical_path(path: str) -> str:
    """Without dot segments and empty ones, and encoded once more than it was sent: only S3 does neither."""
    if path == "/":
        return path
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    slash = "/" if kept and path.endswith("/") else ""
    return quote("/" + "/".join(kept) + slash, safe="/~", errors="surrogateescape")


def _canonical_query(query: str) -> str:
    encoded = sorted((_encoded(name), _encoded(value)) for name, value in _pairs(query) if name != "X-Amz-Signature")
    return "&".join(f"{name}={value}" for name, value in encoded)


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~", errors="surrogateescape")


def _pairs(query: str) -> list[tuple[str, str]]:
    """Names and values. NB: a plus is a space, as to those who read parameters: what is signed is what is meant."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


def _decoded(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


def _incomplete(message: str) -> AwsError:
    return common("IncompleteSignatureException", message)


def _mismatch(message: str) -> AwsError:
    return common("InvalidSignatureException", message)
