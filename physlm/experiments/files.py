"""JSON files that several processes read and write: each is there whole or not at all."""

import json
from typing import Any

from etils import epath

from data_gen.text import lines
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
        content = paths.read_bytes(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return lines.value(content)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error


def read_object(path: epath.Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ValueError: it holds none, or cannot be read; the file is named.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object.")
    return found
