"""The journal of one tenant as it stands in Redis or Valkey; ``prelude.lua`` tells of the keys."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import redis

from perdure.stores.redis.connections import client_url, own_options
from perdure.testing.simulator.journal import Conversation, Item, Journal, Turn


def read_redis(url: str, tenant: str) -> Journal:
    """Read what a server holds of a tenant."""
    plain, options = own_options(url, {"prefix", "replicas"}.__contains__)
    client = redis.Redis.from_url(client_url(plain), decode_responses=True)
    prefix = options.get("prefix", "perdure")
    try:
        return _Reader(client, f"{{{prefix}:{quote(tenant, safe='')}}}:").read()
    finally:
        client.close()


class _Reader:
    def __init__(self, client: Any, key: str) -> None:
        self._client = client
        self._key = key
        self._names = {name.removeprefix(key) for name in client.scan_iter(f"{key}*", count=1000)}

    def read(self) -> Journal:
        """Read everything."""
        parted = [name.split(":") for name in self._names if name.startswith("c:")]
        numbers = sorted(int(parts[1]) for parts in parted if len(parts) == len(("c", "number")))
        with_items = {int(parts[1]) for parts in parted if parts[-1] == "i"}
        handles = [self._hash(name) for name in self._names if name.startswith("h:")]
        orphans = [json.loads(one) for one in self._client.hvals(f"{self._key}od")]
        return Journal(
            conversations=[self._conversation(number) for number in numbers],
            turns=[turn for number in numbers for turn in self._turns(number)],
            items=[item for number in numbers for item in self._items(number)],
            live=[
                (int(one["conversation"]), one["handle"])
                for one in handles
                if one["kind"] in {"conversation", "thread"} and one["state"] == "live"
            ],
            handles={one["handle"] for one in (*handles, *orphans)},
            intents=self._client.hlen(f"{self._key}id"),
            stray=with_items - set(numbers),
        )

    def _hash(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self._client.hgetall(f"{self._key}{name}")
        return found

    def _conversation(self, number: int) -> Conversation:
        row = self._hash(f"c:{number}")
        return Conversation(
            number,
            row["dialect"],
            _number(row.get("origin")),
            _number(row.get("origin_position")),
            row.get("handle"),
            _number(row.get("unread")),
        )

    def _turns(self, number: int) -> list[Turn]:
        start = f"c:{number}:t:"
        seqs = sorted(int(name[len(start) :]) for name in self._names if name.startswith(start))
        return [self._turn(number, seq) for seq in seqs]

    def _turn(self, number: int, seq: int) -> Turn:
        row = self._hash(f"c:{number}:t:{seq}")
        former = row.get("former_ids", "").split()
        return Turn(
            conversation=number,
            seq=seq,
            turn_id=row.get("turn_id"),
            kind=row["kind"],
            state=row["state"],
            first=int(row["first"]),
            last=int(row["last"]),
            runs=(*former, *filter(None, [row.get("response_id")])),
            answer=json.loads(row.get("answer", "{}")),
        )

    def _items(self, number: int) -> list[Item]:
        metas = self._hash(f"c:{number}:i")
        forms, wires = self._hash(f"c:{number}:x"), self._hash(f"c:{number}:w")
        items = []
        for position in sorted(metas, key=int):
            seq, _, withdrawn, *_ = metas[position].split(";")
            if position not in forms:  # a place that is taken
                continue
            head, _, form = forms[position].partition("\n")
            items.append(
                Item(
                    conversation=number,
                    position=int(position),
                    seq=_number(seq),
                    role=json.loads(head)[1] or "",
                    wire=wires.get(position, form),
                    withdrawn=withdrawn == "1",
                )
            )
        return items


def _number(text: str | None) -> int | None:
    return int(text) if text else None
