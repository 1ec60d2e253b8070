"""Certificates for tests: of this authority or another, valid or not, for whom one likes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from api.certificates import CA_CERT, NODE_CERT, NODE_KEY, issue, make_authority
from cluster.tls import Tls, TlsFiles


class Authority:
    """An authority in `directory`, made when first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        make_authority(directory)

    def files(self, node: str, *, days_ago: int = 0) -> TlsFiles:
        """A new certificate for `node`, valid for 60 days after it was made `days_ago`."""
        [place] = issue(self.directory, [node], days=60, replace=True, now=datetime.now(UTC) - timedelta(days=days_ago))
        return TlsFiles(*(str(place / name) for name in (CA_CERT, NODE_CERT, NODE_KEY)))

    def tls(self, node: str) -> Tls:
        return Tls(self.files(node), node)
