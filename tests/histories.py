"""What histories are made of: items of every type, and strategies that draw whole histories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests import replay_rules as rules
from tests.world import World

Json = dict[str, Any]
PROJECT = "Bearer sk-test"
SEALED = "<sealed>"

# -- items ----------------------------------------------------------------------------------


def said(text: str, **more: Any) -> Json:
    """An assistant message as the model makes it."""
    return {"type": "message", "content": [{"type": "output_text", "text": text}], **more}


NOTED = said("Noted.")
QUESTION = {"type": "message", "role": "user", "content": "And now?"}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


_CALLS: dict[str, Json] = {
    "function_call": {"name": "look", "arguments": '{"at":"the sky"}'},
    "custom_tool_call": {"name": "sing", "input": "la"},
    "shell_call": {"action": {"commands": ["ls"]}},
    "apply_patch_call": {
        "operation": {"type": "delete_file", "path": "a.txt"},
        "status": "completed",
    },
    "tool_search_call": {"arguments": {"goal": "maps"}, "execution": "client"},
}


def call(kind: str, call_id: str) -> Json:
    """A call that the app answers."""
    return {"type": kind, "call_id": call_id} | _CALLS[kind]


def answer(to: Json, text: Any = "done") -> Json:
    """The output for a call."""
    return output(to["type"], to["call_id"], text)


def output(kind: str, call_id: str, text: Any = "done") -> Json:
    """The answer to such a call."""
    exited = {"type": "exit", "exit_code": 0}
    members: dict[str, Json] = {
        "function_call": {"output": text},
        "custom_tool_call": {"output": [{"type": "input_text", "text": text}]},
        "shell_call": {"output": [{"stdout": text, "stderr": "", "outcome": exited}]},
        "apply_patch_call": {"status": "completed", "output": text},
        "tool_search_call": {"tools": [TOOL], "execution": "client"},
    }
    return {"type": rules.OUTPUT_OF[kind], "call_id": call_id} | members[kind]


ANSWERED = [
    "function_call",
    "custom_tool_call",
    "shell_call",
    "apply_patch_call",
    "tool_search_call",
]
BUILT_IN: list[Json] = [
    {"type": "web_search_call", "action": {"type": "search", "query": "sky"}},
    {"type": "file_search_call", "queries": ["sky"], "results": None},
    {"type": "code_interpreter_call", "code": "1", "container_id": "cntr_1", "outputs": None},
    {"type": "image_generation_call", "result": "AAAA"},
    {"type": "mcp_list_tools", "server_label": "maps", "tools": []},
    {"type": "mcp_call", "server_label": "maps", "name": "find", "arguments": "{}"},
    {"type": "mcp_approval_request", "server_label": "maps", "name": "find", "arguments": "{}"},
    {"type": "program", "call_id": "call_p", "code": "1", "fingerprint": "f"},
    {"type": "program_output", "call_id": "call_p", "result": "1", "status": "completed"},
]
PNG = "data:image/png;base64,iVBORw0KGgo="
PARTS: list[Json] = [
    {"type": "input_text", "text": "Look."},
    {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
    {"type": "input_image", "image_url": PNG, "detail": "auto"},
    {"type": "input_image", "file_id": "file-1", "detail": "high"},
    {"type": "input_file", "file_id": "file-2"},
    {"type": "input_file", "file_url": "https://example.com/a.pdf", "detail": "low"},
    {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,YQ=="},
]
COMPUTER_OUTPUT = {
    "type": "computer_call_output",
    "call_id": "call_pc",
    "output": {"type": "computer_screenshot", "image_url": PNG},
}


@dataclass
class Sample:
    """How an item of some type comes into a history: the model says it, or the app sends it.

    ``sent`` is made when the answer with ``said`` is there, since some items name another's id.
    """

    said: Sequence[Json] = (NOTED,)
    sent: Callable[[World, Sequence[Json]], list[Json]] = lambda _world, _output: []


def _sending(*items: Json) -> Sample:
    return Sample(sent=lambda world, _output: unsealed(world, items))


def _elsewhere(world: World, _output: Sequence[Json]) -> list[Json]:
    answer = world.plain().respond("Something else.")
    return [{"type": "item_reference", "id": answer.output[0].id}]


_COMPUTER = Sample(
    [{"type": "computer_call", "call_id": "call_pc", "action": {"type": "screenshot"}}],
    lambda _world, _output: [COMPUTER_OUTPUT],
)
_LOCAL_SHELL = Sample(
    [{"type": "local_shell_call", "call_id": "call_sh", "action": {"type": "exec"}}],
    # The only output that names its call by its own id.
    lambda _world, _output: [{"type": "local_shell_call_output", "id": "call_sh", "output": "{}"}],
)
_APPROVAL = Sample(
    [{"type": "mcp_approval_request", "server_label": "m", "name": "f", "arguments": "{}"}],
    lambda _world, output: [
        {
            "type": "mcp_approval_response",
            "approval_request_id": output[0]["id"],
            "approve": True,
        }
    ],
)
_PAIRS = {
    kind: Sample([call(kind, "call_a")], lambda _world, output: [answer(output[0])])
    for kind in ANSWERED
}
SAMPLES: dict[str, Sample] = {
    "message": Sample(),
    "reasoning": Sample([{"type": "reasoning"}, NOTED]),
    **{item["type"]: Sample([item, NOTED]) for item in BUILT_IN},
    **_PAIRS,
    **{rules.OUTPUT_OF[kind]: sample for kind, sample in _PAIRS.items()},
    "computer_call": _COMPUTER,
    "computer_call_output": _COMPUTER,
    "local_shell_call": _LOCAL_SHELL,
    "local_shell_call_output": _LOCAL_SHELL,
    "mcp_approval_request": _APPROVAL,
    "mcp_approval_response": _APPROVAL,
    "item_reference": Sample(sent=_elsewhere),
    "compaction": _sending({"type": "compaction", "encrypted_content": SEALED}),
    "compaction_trigger": _sending({"type": "compaction_trigger"}),
    "additional_tools": _sending(
        {"type": "additional_tools", "role": "developer", "tools": [TOOL]}
    ),
    "configuration_update": _sending(
        {"type": "configuration_update", "reasoning": {"effort": "low"}}
    ),
}


# -- drawing them -----------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
CALL_IDS = st.sampled_from(["call_a", "call_b", "call_c"])
PHASES = st.sampled_from([{}, {"phase": "commentary"}, {"phase": "final_answer"}])
CALLS = st.builds(call, st.sampled_from(ANSWERED), CALL_IDS)
OUTPUTS = st.builds(output, st.sampled_from(ANSWERED), CALL_IDS, TEXTS)
REASONING = st.sampled_from(
    [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "reasoning", "summary": [], "encrypted_content": SEALED},
    ]
)
APPENDED = st.one_of(
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["user", "user", "developer", "system"]),
        TEXTS,
    ),
    st.builds(
        lambda parts: {"type": "message", "role": "user", "content": parts},
        st.lists(st.sampled_from(PARTS), max_size=3),
    ),
    st.builds(lambda text, phase: {"role": "assistant", "content": text} | phase, TEXTS, PHASES),
    st.builds(
        lambda text: {"role": "assistant", "content": [{"type": "refusal", "refusal": text}]}, TEXTS
    ),
    CALLS,
    OUTPUTS,
    CALLS,
    OUTPUTS,
    REASONING,
    st.sampled_from(
        [
            {"type": "additional_tools", "role": "developer", "tools": [TOOL]},
            {"type": "configuration_update", "reasoning": {"effort": "low"}},
            COMPUTER_OUTPUT,
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        ]
    ),
)
SENT = APPENDED | st.just({"type": "compaction", "encrypted_content": SEALED})
SAID = st.one_of(
    st.builds(lambda text, phase: said(text) | phase, TEXTS, PHASES),
    st.builds(
        lambda text: {
            "type": "message",
            "content": [
                {"type": "output_text", "text": text},
                {"type": "refusal", "refusal": "No more."},
            ],
        },
        TEXTS,
    ),
    CALLS,
    st.just({"type": "reasoning"}),
    st.sampled_from(BUILT_IN),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(APPENDED, min_size=1, max_size=6), st.none()),
        st.tuples(
            st.just("turn"),
            st.lists(SENT, max_size=3),
            st.lists(SAID, min_size=1, max_size=4),
        ),
        st.tuples(st.just("answer"), st.integers(0, 7), st.lists(SAID, min_size=1, max_size=3)),
        st.tuples(st.just("lose"), st.none(), st.none()),
    ),
    max_size=6,
)


def unsealed(world: World, items: Sequence[Json]) -> list[Json]:
    """Items with content that this app's organisation may send back."""
    return [
        item | {"encrypted_content": world.provider.state.seal(PROJECT, "Much was said.")}
        if item.get("encrypted_content") == SEALED
        else item
        for item in items
    ]


def answers(items: Sequence[Json], chosen: int) -> list[Json]:
    """Outputs for the calls that are still open: those whose bit is set in ``chosen``."""
    kept = set(rules.given_again(items))
    found: dict[str, Json] = {}
    for position, item in enumerate(items):
        if rules.kind_of(item) in ANSWERED and position not in kept:
            made = answer(item)
            if position in rules.given_again(items, [made]):
                found[repr(made)] = made
    return [made for bit, made in enumerate(found.values()) if chosen & (1 << bit)]


THREAD_PARTS: list[Json] = [
    {"type": "text", "text": "Look."},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "high"}},
]
THREAD_STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("say"),
            st.just("user"),
            st.one_of(TEXTS, st.lists(st.sampled_from(THREAD_PARTS), max_size=3), st.just("")),
        ),
        st.tuples(
            st.just("say"), st.just("assistant"), TEXTS | st.just([{"type": "text", "text": "Hi."}])
        ),
        st.tuples(st.just("run"), st.just(""), TEXTS),
        st.tuples(st.just("lose"), st.just(""), st.just("")),
    ),
    max_size=7,
)
