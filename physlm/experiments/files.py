"""JSON files that several processes read and write: each is there whole or not at all."""

import json
from typing import Any

from etils import epath

from physlm import paths


def write_json(path: epath.Path, content: Any) -> None:
    """Writes a value as indented JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    paths.write_atomically(path, text + "\n")


def read_json(path: epath.Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        ValueError: it is not JSON, or cannot be read; the file is named.
    """
    try:
        return json.loads(paths.read_bytes(path).decode("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error.msg}).") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
