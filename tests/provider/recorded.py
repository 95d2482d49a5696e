"""The recorded traffic, and what of it may differ from one run to the next."""

import json
import re
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "openai"
ID = re.compile(r"\b(resp|conv|msg|fc|rs|call)_[A-Za-z0-9]{16,}")
VARYING = {"created_at": 0, "obfuscation": "", "sequence_number": 0}


def load(path: str) -> Any:
    """Return a recorded JSON body."""
    return json.loads((DATA / path).read_text())


def events_of(stream: str) -> list[tuple[str, Any]]:
    """Return the events of a raw stream."""
    found = []
    for block in stream.strip().split("\n\n"):
        name, data = block.split("\n", 1)
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def load_events(path: str) -> list[tuple[str, Any]]:
    """Return the events of a recorded stream."""
    return events_of((DATA / path).read_text())


def settled(value: Any) -> Any:
    """Return a body with ids, times and token numbers made equal."""
    if isinstance(value, dict):
        return {name: _settled_member(name, held) for name, held in value.items()}
    if isinstance(value, list):
        return [settled(one) for one in value]
    return ID.sub(r"\1_*", value) if isinstance(value, str) else value


def _settled_member(name: str, held: Any) -> Any:
    if name in VARYING:
        return VARYING[name]
    if name.endswith("_tokens") and name != "max_output_tokens" and isinstance(held, int):
        return 0
    return settled(held)


def collapsed(events: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return a stream with successive deltas joined, since tokens are cut differently."""
    assert [data["sequence_number"] for _name, data in events] == list(range(len(events)))
    joined: list[tuple[str, Any]] = []
    for name, data in events:
        if name.endswith(".delta") and joined and joined[-1][0] == name:
            joined[-1][1]["delta"] += data["delta"]
        else:
            joined.append((name, dict(data)))
    return [(name, settled(data)) for name, data in joined]


def spoken(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return recorded output items as a script: without their ids."""
    return [{name: held for name, held in item.items() if name != "id"} for item in output]
