"""What leaves at the end of a tick: acknowledgements, votes and answers, and none of them before the tick is durable.

Only messages that promise nothing are urgent, and leave at once (`cluster.messages`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.dispatcher import Request
from cluster.messages import Message
from cluster.wire import FRAME_BYTES_MAX, ToldChange
from storage.operations import ITEM_HEADER, Outcome, encode_outcome


class Outbox:
    """Holds what was said in a tick until its caller has committed it, and calls `release`."""

    def __init__(
        self,
        post: Callable[[str, Message], None],
        answer: Callable[[object, list[bytes]], None],
        tell: Callable[[object, ToldChange], None],
    ) -> None:
        """`post` to replicas, `answer` gateways (by parts of frames), `tell` them what became of a membership."""
        self._post, self._answer, self._tell = post, answer, tell
        self._messages: list[tuple[str, Message]] = []
        self._answers: dict[object, list[tuple[bytes, bytes, bytes]]] = {}
        self._changes: list[tuple[object, ToldChange]] = []
        self.block_bytes = 0
        """Bytes of messages in the answers that wait."""

    def send(self, node: str, message: Message) -> None:
        """For another replica."""
        if message.urgent:
            self._post(node, message)
        else:
            self._messages.append((node, message))

    def reply(self, request: Request, outcome: Outcome) -> None:
        """The answer to a request."""
        self.reply_encoded(request, encode_outcome(outcome), b"")

    def reply_encoded(self, request: Request, outcome: bytes, block: bytes) -> None:
        """The answer to a request, with the messages that go with it."""
        header = ITEM_HEADER.pack(request.session, request.seq, len(outcome), len(block))
        self._answers.setdefault(request.gateway, []).append((header, outcome, block))
        self.block_bytes += len(block)

    def tell(self, told: Iterable[tuple[object, ToldChange]]) -> None:
        """Who is told what has become of the change of the membership that it asked for."""
        self._changes.extend(told)

    def release(self) -> None:
        """The tick is durable: let go of it all."""
        messages, self._messages = self._messages, []
        for node, message in messages:
            self._post(node, message)
        answers, self._answers, self.block_bytes = self._answers, {}, 0
        for gateway, items in answers.items():
            frame: list[bytes] = []
            size = 0
            for item in items:
                item_bytes = sum(map(len, item))
                if frame and size + item_bytes > FRAME_BYTES_MAX // 2:
                    self._answer(gateway, frame)
                    frame, size = [], 0
                frame.extend(item)
                size += item_bytes
            self._answer(gateway, frame)
        changes, self._changes = self._changes, []
        for asker, told in changes:
            self._tell(asker, told)
