"""The access key that commands use: from the environment, or from a file of the user's own."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from api.console import UsageError

VARIABLE = "TRIMARAN_KEY"


def key_file() -> Path:
    """Where `trimaran keys create --save` puts the key, and every command looks for it."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "trimaran" / "key"


def authorization() -> str | None:
    """The Authorization header of this user's requests; None if there is no key. Raises `UsageError`."""
    text, source = os.environ.get(VARIABLE, ""), VARIABLE
    if not text:
        source = str(key_file())
        try:
            text = key_file().read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"the access key in {source} cannot be read: {error}") from error
    key_id, colon, secret = text.partition(":")
    if not (key_id and colon and secret and text.isascii() and text.isprintable()):
        raise UsageError(f"{source} is no access key: ID:SECRET is expected, as `trimaran keys create` tells them")
    return "Basic " + base64.b64encode(text.encode()).decode()


def save(key_id: str, secret: str) -> Path:
    """Keep the key for this user's commands, for nobody else to read. Raises `OSError`."""
    path = key_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{key_id}:{secret}\n")
    temporary.replace(path)
    return path
