"""`trimaran certs`: what it makes is accepted by nodes, guarded from others, and never overwritten unasked."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.certificates import CertificateError, issue, make_authority
from api.cli import run
from cluster.tls import Tls, TlsFiles

Trimaran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trimaran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trimaran:
    """Run a command line in an empty directory; returns the exit code, the output, and what was said beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*tokens: str) -> tuple[int, str, str]:
        code = run(tokens)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_what_is_made_is_what_a_node_needs_and_only_its_owner_reads_it(trimaran: Trimaran, tmp_path: Path) -> None:
    code, said, _ = trimaran("certs", "init")
    assert (code, "keep it off the nodes" in said) == (0, True)
    code, said, _ = trimaran("certs", "issue", "n1", "n_2", "--host", "box.example", "--host", "10.0.0.1")
    assert code == 0
    assert "copy trimaran-certs/n1 to that node alone" in said
    assert 'cert = "/etc/trimaran/tls/node.crt"' in said
    for node in ("n1", "n_2"):
        place = tmp_path / "trimaran-certs" / node
        assert {path.name for path in place.iterdir()} == {"ca.crt", "node.crt", "node.key", "seal.key"}
        assert Tls(TlsFiles(*(str(place / name) for name in ("ca.crt", "node.crt", "node.key"))), node)
    for path in (tmp_path / "trimaran-certs").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_nothing_is_overwritten_unasked(trimaran: Trimaran, tmp_path: Path) -> None:
    trimaran("certs", "init")
    trimaran("certs", "issue", "n2")
    before = contents(tmp_path)
    code, _, said = trimaran("certs", "init")
    assert (code, "ca.key exists" in said) == (1, True)
    code, _, said = trimaran("certs", "issue", "n1", "n2")
    assert (code, "n2/node.crt exists" in said, "--replace" in said) == (1, True, True)
    assert contents(tmp_path) == before, "not even n1 was made"
    assert trimaran("certs", "issue", "n2", "--replace")[0] == 0
    changed = {path.name for path, content in contents(tmp_path).items() if content != before[path]}
    assert changed == {"node.crt", "node.key"}


@pytest.mark.parametrize(
    ("tokens", "code", "said"),
    [
        (("issue", "n1"), 1, "ca.crt does not exist: make an authority with `trimaran certs init`"),
        (("issue",), 2, "name the nodes"),
        (("issue", "../n1"), 2, "'../n1': a node's name has 1 to 32 letters"),
        (("show",), 1, "trimaran-certs cannot be read"),
        (("show", "."), 1, "holds no certificates"),
    ],
)
def test_what_is_refused_and_what_is_said(trimaran: Trimaran, tokens: tuple[str, ...], code: int, said: str) -> None:
    ended, _, errors = trimaran("certs", *tokens)
    assert (ended, said in errors) == (code, True), errors


def test_a_host_that_is_none_and_a_key_that_is_not_the_authoritys_are_refused(
    trimaran: Trimaran, tmp_path: Path
) -> None:
    trimaran("certs", "init")
    assert "neither an address nor a name" in trimaran("certs", "issue", "n1", "--host", "bücher.example")[2]
    trimaran("certs", "init", "--dir", "other")
    (tmp_path / "other" / "ca.key").replace(tmp_path / "trimaran-certs" / "ca.key")
    assert "is not the key of" in trimaran("certs", "issue", "n1")[2]
    (tmp_path / "trimaran-certs" / "ca.key").write_text("x")
    assert "no key in PEM form" in trimaran("certs", "issue", "n1")[2]
    assert not (tmp_path / "trimaran-certs" / "n1").exists()


def test_show_tells_names_signers_and_ends(trimaran: Trimaran) -> None:
    trimaran("certs", "init")
    trimaran("certs", "issue", "n1", "--host", "box.example", "--days", "20")
    code, out, said = trimaran("certs", "show", "--json")
    authority, node = json.loads(out)["certificates"]
    assert (code, authority["authority"], node["authority"]) == (0, True, False)
    assert (node["name"], node["hosts"], node["days_left"]) == ("n1", ["n1", "box.example"], 19)
    assert node["signed_by"] == authority["signed_by"] == authority["name"]
    assert said == "trimaran: trimaran-certs/n1/node.crt expires in 19 days\n"
    assert "box.example" in trimaran("certs", "show")[1]
    assert (
        json.loads(trimaran("certs", "show", "trimaran-certs/n1/node.crt", "--json")[1])["certificates"][0]["signed_by"]
        is None
    ), "the authority is not among the files looked at"


def test_an_end_is_shown_and_no_certificate_outlives_its_authority(trimaran: Trimaran, tmp_path: Path) -> None:
    directory, long_ago = tmp_path / "trimaran-certs", datetime.now(UTC) - timedelta(days=100)
    make_authority(directory, days=90, now=long_ago)
    issue(directory, ["n1"], days=1000, now=long_ago)
    code, out, said = trimaran("certs", "show", "--json")
    authority, node = json.loads(out)["certificates"]
    assert authority["expires"] == node["expires"]
    assert (code, "n1/node.crt has expired" in said) == (1, True)
    with pytest.raises(CertificateError, match="the authority in .* has expired"):
        issue(directory, ["n2"])
