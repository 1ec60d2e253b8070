"""What a gateway is told instead of an answer."""

from __future__ import annotations

from typing import Literal

ALONE = "this node does not reach a majority of the cluster"
NO_SHARD = "this node's shard does not answer"


class ClusterTrouble(Exception):
    """The cluster could not answer in time.

    `outcome` is "not_done" when the operation surely has not taken effect and never will, "unknown" when it may have.
    """

    def __init__(self, outcome: Literal["not_done", "unknown"], detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
