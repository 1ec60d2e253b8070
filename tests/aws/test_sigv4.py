"""Signatures: AWS's own published examples, whatever botocore signs, and everything that must not pass."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from unittest.mock import patch
from urllib.parse import quote, urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given
from hypothesis import strategies as st

from api.aws import sigv4
from api.aws.errors import AwsError
from api.aws.sigv4 import HttpRequest, read, verify

NOW = datetime(2026, 11, 24, 8, 15, 30, tzinfo=UTC)
KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SUITE_AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
HOST = ("Host", "example.amazonaws.com")


def suite_request(method: str, target: str, *headers: tuple[str, str], signed: str, signature: str) -> HttpRequest:
    claim = (
        f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={signed}, Signature={signature}"
    )
    dated = ("X-Amz-Date", "20150830T123600Z")
    return HttpRequest(method, target, [HOST, *headers, dated, ("Authorization", claim)], b"")


VANILLA = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("method", "target", "headers", "signature"),
    [
        ("GET", "/", [], VANILLA),
        ("GET", "/example1/example2/../..", [], VANILLA),
        ("GET", "/./", [], VANILLA),
        ("GET", "//", [], VANILLA),
        ("GET", "/./example", [], "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"),
        ("GET", "//example//", [], "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"),
        ("GET", "/example space/", [], "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"),
        ("GET", f"/{UNRESERVED}", [], "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"),
        ("GET", "/ሴ", [], "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        ("GET", "/?Param1=value1", [], "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"),
        (
            "GET",
            "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
            [],
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        (
            "GET",
            "/?Param2=value2&Param1=value1",
            [],
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "GET",
            f"/?{UNRESERVED}={UNRESERVED}",
            [],
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        ("GET", "/?ሴ=bar", [], "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
        ("POST", "/", [], "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "GET",
            "/",
            [("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")],
            "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        ),
        (
            "GET",
            "/",
            [("My-Header1", "value4"), ("My-Header1", "value1"), ("My-Header1", "value3"), ("My-Header1", "value2")],
            "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        ),
        (
            "GET",
            "/",
            [("My-Header1", " value1"), ("My-Header2", ' "a   b   c"')],
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "POST",
            "/",
            [("My-Header1", "VALUE1")],
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
    ],
)
def test_the_published_examples(method: str, target: str, headers: list[tuple[str, str]], signature: str) -> None:
    signed = ";".join(sorted({"host", "x-amz-date", *(name.lower() for name, _ in headers)}))
    request = suite_request(method, target, *headers, signed=signed, signature=signature)
    claim = read(request)
    assert claim is not None
    verify(claim, request, SECRET, "service", SUITE_AT)
    with pytest.raises(AwsError, match="does not match"):
        verify(claim, request._replace(method="PUT"), SECRET, "service", SUITE_AT)


def test_a_session_token_is_signed_along_and_otherwise_ignored() -> None:
    token = ("X-Amz-Security-Token", "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267")
    request = suite_request(
        "GET",
        "/",
        token,
        signed="host;x-amz-date;x-amz-security-token",
        signature="07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
    )
    claim = read(request)
    assert claim is not None
    verify(claim, request, SECRET, "service", SUITE_AT)


# --- whatever botocore signs ------------------------------------------------------------------------------------------

visible = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
words = st.text(visible, max_size=20)
segments = st.one_of(
    st.sampled_from(["", ".", "..", "000000000000", "a b", "50%", "ü/ö", "q.fifo"]), st.text(max_size=8)
)
paths = st.lists(segments, max_size=5).map(lambda parts: "/" + "/".join(quote(part, safe="") for part in parts))
parameters = st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=12), max_size=5)
header_names = st.from_regex(r"X-(Odd|Even|Amz-Meta)-[a-zA-Z0-9]{1,8}", fullmatch=True)
headers = st.lists(st.tuples(header_names, words), max_size=4)
regions = st.sampled_from(["us-east-1", "eu-central-1", "mars-north-7"])
services = st.sampled_from(["sqs", "sns"])


def encodable(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)


def on_the_wire(signed: AWSRequest) -> HttpRequest:
    """What a server gets to see of a signed request."""
    prepared = signed.prepare()
    url = urlsplit(prepared.url)
    target = url.path + (f"?{url.query}" if url.query else "")
    came = list(signed.headers.items())  # the prepared ones keep only the last of a name
    if not any(name.lower() == "host" for name, _ in came):
        came.append(("Host", url.netloc))
    text = [(name, value.decode() if isinstance(value, bytes) else str(value)) for name, value in came]
    body = prepared.body or b""
    return HttpRequest(prepared.method, target, text, body.encode() if isinstance(body, str) else body)


def sign(signer: auth.SigV4Auth, request: AWSRequest, at: datetime = NOW) -> HttpRequest:
    with patch.object(auth, "get_current_datetime", return_value=at):
        signer.add_auth(request)
    return on_the_wire(request)


@given(
    method=st.sampled_from(["GET", "POST", "put"]),
    path=paths.filter(encodable),
    query=parameters.filter(lambda found: all(encodable(name + value) for name, value in found.items())),
    more=headers,
    body=st.binary(max_size=100),
    region=regions,
    service=services,
    token=st.none() | st.text(st.characters(categories=["Lu", "Nd"], max_codepoint=0x7E), min_size=1, max_size=20),
    wrong=st.sampled_from(["secret", "body", "path", "query", "date"]),
)
@example("POST", "/%2F..%2e/a%20b//c/", {"a": "b+c d", "A": "%"}, [], b"", "us-east-1", "sqs", None, "query")
def test_what_botocore_signs_in_a_header_is_believed_and_nothing_else(
    method: str,
    path: str,
    query: dict[str, str],
    more: list[tuple[str, str]],
    body: bytes,
    region: str,
    service: str,
    token: str | None,
    wrong: str,
) -> None:
    encoded = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
    request = AWSRequest(method, "http://127.0.0.1:7700" + path + (f"?{encoded}" if encoded else ""), data=body)
    for name, value in more:
        request.headers.add_header(name, value)
    came = sign(auth.SigV4Auth(Credentials(KEY_ID, SECRET, token), service, region), request)
    claim = read(came)
    assert claim is not None
    assert (claim.access_key_id, claim.region, claim.service) == (KEY_ID, region, service)
    verify(claim, came, SECRET, service, NOW)

    changed, secret = came, SECRET
    target, _, asked = came.target.partition("?")
    match wrong:
        case "secret":
            secret += "x"
        case "body":
            changed = came._replace(body=body + b"x")
        case "path":
            changed = came._replace(target=f"{target}x?{asked}")
        case "query":
            changed = came._replace(target=f"{target}?{asked}&x=y")
        case "date":
            later = (claim.at + timedelta(seconds=1)).strftime("%Y%m%dT%H%M%SZ")
            changed = came._replace(headers=[(n, later if n == "X-Amz-Date" else v) for n, v in came.headers])
    claim = read(changed)
    assert claim is not None
    with pytest.raises(AwsError, match="does not match") as refused:
        verify(claim, changed, secret, service, NOW)
    assert (refused.value.code, refused.value.status) == ("SignatureDoesNotMatch", 403)


@given(
    path=paths.filter(encodable),
    query=parameters.filter(lambda found: all(encodable(name + value) for name, value in found.items())),
    region=regions,
    token=st.none() | st.just("FwoGZXIvYXdzE+/="),
    expires=st.integers(1, sigv4.EXPIRES_S_MAX),
)
def test_what_botocore_presigns_is_believed_until_it_expires(
    path: str, query: dict[str, str], region: str, token: str | None, expires: int
) -> None:
    signer = auth.SigV4QueryAuth(Credentials(KEY_ID, SECRET, token), "sqs", region, expires=expires)
    came = sign(signer, AWSRequest("GET", "http://broker.example" + path, params=query))
    claim = read(came)
    assert claim is not None
    for later_s in (0, expires):
        verify(claim, came, SECRET, "sqs", NOW + timedelta(seconds=later_s))
    with pytest.raises(AwsError, match="Request has expired") as refused:
        verify(claim, came, SECRET, "sqs", NOW + timedelta(seconds=expires + 1))
    assert (refused.value.code, refused.value.status) == ("RequestExpired", 400)
    changed = came._replace(target=came.target.replace("X-Amz-Expires=", "x=1&X-Amz-Expires="))
    with pytest.raises(AwsError, match="does not match"):
        verify(claim, changed, SECRET, "sqs", NOW)


# --- what must not pass -----------------------------------------------------------------------------------------------


def signed(**changes: str) -> HttpRequest:
    """A signed SQS request, with headers replaced."""
    request = AWSRequest("POST", "http://127.0.0.1:7700/", data=b"{}")
    request.headers["X-Amz-Target"] = "AmazonSQS.ListQueues"
    came = sign(auth.SigV4Auth(Credentials(KEY_ID, SECRET), "sqs", "eu-west-1"), request)
    replaced = {name.replace("_", "-"): value for name, value in changes.items()}
    kept = [(name, value) for name, value in came.headers if name not in replaced]
    return came._replace(headers=[*kept, *replaced.items()])


def judge(request: HttpRequest, at: datetime, service: str) -> None:
    claim = read(request)
    assert claim is not None
    verify(claim, request, SECRET, service, at)


def refusal(request: HttpRequest, at: datetime = NOW, service: str = "sqs") -> tuple[str, int, str]:
    with pytest.raises(AwsError) as refused:
        judge(request, at, service)
    return refused.value.code, refused.value.status, refused.value.message


def test_the_clock_may_be_off_by_fifteen_minutes_and_not_more() -> None:
    request = signed()
    claim = read(request)
    assert claim is not None
    for minutes in (-15, 0, 15):
        verify(claim, request, SECRET, "sqs", NOW + timedelta(minutes=minutes))
    assert refusal(request, NOW + timedelta(minutes=15, seconds=1)) == (
        "SignatureDoesNotMatch",
        403,
        "Signature expired: 20261124T081530Z is now earlier than 20261124T081531Z (20261124T083031Z - 15 min.)",
    )
    assert refusal(request, NOW - timedelta(minutes=15, seconds=1)) == (
        "SignatureDoesNotMatch",
        403,
        "Signature not yet current: 20261124T081530Z is still later than 20261124T081529Z (20261124T080029Z + 15 min.)",
    )


def test_the_date_may_come_in_the_older_header() -> None:
    request = AWSRequest("POST", "http://127.0.0.1/", data=b"{}", headers={"Date": "will be set"})
    came = sign(auth.SigV4Auth(Credentials(KEY_ID, SECRET), "sqs", "eu-west-1"), request)
    assert "x-amz-date" not in came.named()
    claim = read(came)
    assert claim is not None
    verify(claim, came, SECRET, "sqs", NOW)


def test_a_signature_for_another_service_is_not_one_for_this() -> None:
    assert refusal(signed(), service="sns") == (
        "SignatureDoesNotMatch",
        403,
        "Credential should be scoped to correct service: 'sns'.",
    )


@pytest.mark.parametrize("header", ["host", "x-amz-target"])
def test_what_says_where_and_what_must_be_signed(header: str) -> None:
    request = signed()
    told = dict(request.headers)["Authorization"]
    without = re.sub(f"{header};|;{header}(?=,)", "", told)
    assert without != told
    assert refusal(signed(Authorization=without))[:2] == ("SignatureDoesNotMatch", 403)
    assert f"'{header}' must be a 'SignedHeader'" in refusal(signed(Authorization=without))[2]


def test_an_unsigned_payload_never_passes() -> None:
    request = AWSRequest("POST", "https://127.0.0.1/", data=b"{}", headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    came = sign(auth.SigV4Auth(Credentials(KEY_ID, SECRET), "sqs", "eu-west-1"), request)
    assert refusal(came)[:2] == ("SignatureDoesNotMatch", 403)


def test_a_declared_digest_of_the_body_is_fine_when_it_is_true() -> None:
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    request = AWSRequest("POST", "https://127.0.0.1/", data=b"{}", headers={"X-Amz-Content-SHA256": digest})
    came = sign(auth.SigV4Auth(Credentials(KEY_ID, SECRET), "sqs", "eu-west-1"), request)
    claim = read(came)
    assert claim is not None
    verify(claim, came, SECRET, "sqs", NOW)


SCOPE = "AKID/20261124/eu-west-1/sqs/aws4_request"


@pytest.mark.parametrize(
    ("authorization", "code", "said"),
    [
        ("Basic dXNlcjpwYXNz", "IncompleteSignature", "Unsupported AWS 'algorithm': 'Basic'."),
        ("Bearer x", "IncompleteSignature", "Unsupported AWS 'algorithm': 'Bearer'."),
        ("", "IncompleteSignature", "Unsupported AWS 'algorithm': ''."),
        ("AWS4-ECDSA-P256-SHA256 x", "IncompleteSignature", "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256'."),
        (
            "AWS4-HMAC-SHA256 Credential=a",
            "IncompleteSignature",
            "Authorization header requires 'Signature' parameter. "
            "Authorization header requires 'SignedHeaders' parameter.",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0",
            "IncompleteSignature",
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=AKID/20261123/eu-west-1/sqs/aws4_request, SignedHeaders=host, Signature=0",
            "SignatureDoesNotMatch",
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            "'20261123' != '20261124', from '20261124T081530Z'.",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=AKID/20261124/eu-west-1/sqs/aws5_request, SignedHeaders=host, Signature=0",
            "SignatureDoesNotMatch",
            "Credential should be scoped with a valid terminator: 'aws4_request'.",
        ),
    ],
)
def test_what_is_no_claim_is_refused_in_words_that_help(authorization: str, code: str, said: str) -> None:
    found = refusal(signed(Authorization=authorization))
    assert (found[0], found[2]) == (code, said)


@pytest.mark.parametrize("date", ["", "yesterday", "2026-11-24T08:15:30Z", "20261324T081530Z", "99999999999999999999"])
def test_a_date_that_is_none_is_refused(date: str) -> None:
    assert refusal(signed(X_Amz_Date=date))[:2] == ("IncompleteSignature", 400)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "must include 'X-Amz-Credential'"),
        ("X-Amz-Algorithm=MD5&X-Amz-Signature=0", "Unsupported AWS 'algorithm': 'MD5'"),
        (
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={SCOPE}&X-Amz-Date=20261124T081530Z"
            "&X-Amz-SignedHeaders=host&X-Amz-Signature=0&X-Amz-Expires=604801",
            "from 1 to 604800",
        ),
        (
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={SCOPE}&X-Amz-Date=20261124T081530Z"
            "&X-Amz-SignedHeaders=host&X-Amz-Signature=0&X-Amz-Expires=-1",
            "from 1 to 604800",
        ),
    ],
)
def test_a_presigned_url_that_is_not_whole_is_refused(query: str, said: str) -> None:
    code, status, message = refusal(HttpRequest("GET", f"/?Action=ListQueues&{query}", [HOST], b""))
    assert (code, status) == ("IncompleteSignature", 400)
    assert said in message


@given(st.text(max_size=60), st.text(max_size=30), st.text(max_size=60))
def test_any_rubbish_is_a_refusal_and_never_a_failure(authorization: str, date: str, query: str) -> None:
    for told in (authorization, f"AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders={date}, Signature={query}"):
        headers = [HOST, ("Authorization", told), ("X-Amz-Date", date)]
        with pytest.raises(AwsError):
            judge(HttpRequest("GET", "/?" + query, headers, b""), NOW, "sqs")


def test_a_target_with_scheme_and_host_is_the_same_target() -> None:
    request = suite_request("GET", "http://example.amazonaws.com/", signed="host;x-amz-date", signature=VANILLA)
    judge(request, SUITE_AT, "service")


def test_what_is_not_signed_claims_nothing() -> None:
    assert read(HttpRequest("GET", "/?Action=ListQueues", [HOST], b"")) is None
