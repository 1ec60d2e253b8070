"""The command for transactions."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from api.console import DEFAULT_URL, Exit, Json, Url, UsageError, printable, say, say_json
from api.console_client import Client


def transaction(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True, help="The transaction, as JSON; - is standard input.")],
    /,
    *,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Ack, nack, extend and send together: all of it happens, or nothing does.

    ```
    trimaran transaction steps.json
    echo '{"acks": [{"queue": "orders", "receipts": ["AQA…"]}],
           "sends": [{"queue": "mails", "messages": [{"body": "it is on its way"}]}]}' | trimaran transaction -
    ```

    Exit code 1: a step cannot be done, such as one with a stale receipt, and nothing has happened.
    """
    try:
        steps = json_module.loads(sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}") from error
    answer = Client(url).request("POST", "/v1/transactions", steps)
    if json:
        say_json(answer)
        return Exit.DONE
    for name in ("acked", "nacked", "extended"):
        if answer[name]:
            say(f"{name} {answer[name]:,}")
    for sent in answer["sends"]:
        say(f"sent {len(sent['messages']):,} to {printable(sent['queue'])}")
    return Exit.DONE
