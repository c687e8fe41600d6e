"""Reads JSON lines: any value, or a problem with its texts; errors say what is wrong.

Nothing that is read is run: JSON holds numbers, texts, lists and objects, and nothing else.
"""

import json
from collections.abc import Sequence
from typing import Any

from data_gen.text.reader import layers_in


def value(text: bytes | str) -> Any:
    """The value that a JSON text stands for.

    Raises:
      ValueError: it stands for none; says why, in words that go on after "is not valid JSON: ".
    """
    try:
        return json.loads((text.decode("utf-8") if isinstance(text, bytes) else text).rstrip())
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        # Its own text counts lines, of which there is one here.
        raise ValueError(f"{error.msg}, at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError("a number has too many digits") from error


def record(found: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Checks that a value is a problem with these texts, and parses its layers.

    Raises:
      ValueError: it is none; one sentence that names the field.
    """
    if not isinstance(found, dict):
        raise ValueError("is not a JSON object.")
    for name in ("layers", *texts):
        if name not in found:
            raise ValueError(f"has no field {name!r}.")
    for name in texts:
        if not isinstance(found[name], str):
            raise ValueError(f"has {_kind(found[name])} for {name}, which must be a text.")
    return {**found, "layers": layers_in(found["layers"])}


def _kind(found: Any) -> str:
    if found is None or isinstance(found, bool):
        return json.dumps(found)
    names = {dict: "an object", list: "a list", int: "a number", float: "a number"}
    return names.get(type(found), "a text")
