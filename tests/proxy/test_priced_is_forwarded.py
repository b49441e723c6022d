"""What was priced is what is forwarded, however strangely a body spells it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import Problem
from proxy.wire.openai_chat import parse_chat

NUMBERS = st.sampled_from(
    ["null", "1", "7", "128", "16384", "2147483647", "0", "-0", "-1", "1.0", "1e2", "10E-1", "true",
     '"10"', "129", "2147483648", "18446744073709551616", "[5]", "1e400", "01", "1" * 64, "NaN"]
)  # fmt: skip
BOOLEANS = st.sampled_from(["true", "false", "null", "1", '"true"'])
STREAM_OPTIONS = st.one_of(
    st.sampled_from(["null", "{}", "[]", '{"include_usage":null}', '{"Include_Usage":false}']),
    st.dictionaries(
        st.sampled_from(["include_usage", "include_obfuscation", "include_usa\\u0067e"]),
        BOOLEANS,
    ).map(lambda options: _object(list(options.items()))),
)
MESSAGES = st.sampled_from(
    [
        '[{"role":"user","content":"Hi \\ud83d\\ude00 \\" } ] , { [ :"}]',
        '[{"r\\u006fle":"user","content":[{"type":"t\\u0065xt","text":"a"}]}]',
        '[ {"content":null,"role":"assistant","tool_calls":[{"id":"1","x":{"model":"b"}}]} ]',
    ]
)
VALUES = {
    "model": st.sampled_from(['"a"', '"\\u0061"', '"a\\"}"', '"é😀"', '"\\ud83d\\ude00"', "null"]),
    "messages": MESSAGES,
    "max_tokens": NUMBERS,
    "max_completion_tokens": NUMBERS,
    "n": NUMBERS,
    "stream": BOOLEANS,
    "stream_options": STREAM_OPTIONS,
    "metadata": st.sampled_from(['{"max_tokens":1,"Max_Tokens":2}', '{"model":"b","}":"{"}']),
    "seed": st.sampled_from(["1e22", "-0.0", "123456789012345678901234567890", "0.1"]),
    "user": st.sampled_from(['"\\u007b\\"model\\":\\"b\\""', '"\\\\"', '"\\/"']),
}
SPACES = st.sampled_from(["", " ", "\n\t", "\r\n  "])


def _object(members: list[tuple[str, str]], space: str = "") -> str:
    inner = f"{space},{space}".join(f'"{name}"{space}:{space}{text}' for name, text in members)
    return f"{{{space}{inner}{space}}}"


@st.composite
def _spelled(draw: st.DrawFn, name: str) -> str:
    """Write a name with one of its letters escaped, in another case, or as it is."""
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from([name[at], f"\\u{ord(name[at]):04x}", name[at].upper()]))
    return name[:at] + letter + name[at + 1 :]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Write bodies that are mostly right and always strange."""
    optional = sorted(VALUES.keys() - {"model", "messages"})
    names = ["model", "messages", *draw(st.lists(st.sampled_from(optional), max_size=6))]
    members = [
        (draw(st.just(name) | _spelled(name)), draw(VALUES[name]))
        for name in draw(st.permutations(names))
    ]
    return (draw(SPACES) + _object(members, draw(SPACES)) + draw(SPACES)).encode()


def _exactly(body: bytes) -> dict[str, Any]:
    """Read JSON with numbers as they are written; no object may have a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    read: dict[str, Any] = json.loads(
        body, object_pairs_hook=once, parse_int=lambda text: text, parse_float=lambda text: text
    )
    return read


@example(
    b'{"model":"a","messages":[{"role":"user"}],"stream":true,'
    b'"stream_options":{"Include_Usage":false}}'
)
@given(bodies())
def test_the_forwarded_body_reads_as_what_was_priced(body: bytes) -> None:
    try:
        chat = parse_chat(body)
    except Problem:
        return
    read = json.loads(body)
    caps = [read.get("max_tokens"), read.get("max_completion_tokens")]
    assert chat.model == read["model"]
    assert chat.output_tokens_cap == max((cap for cap in caps if cap is not None), default=None)
    assert chat.choices == (1 if read.get("n") is None else read["n"])
    assert chat.streams is (read.get("stream") is True)
    options = read.get("stream_options") or {}
    assert chat.wants_usage is (options.get("include_usage") is True)

    expected = {**_exactly(body), "model": "served"}
    if chat.streams:
        expected["stream_options"] = {**options, "include_usage": True}
    forwarded = _exactly(chat.upstream_body("served", streams=chat.streams))
    assert forwarded == expected
    assert len({name.casefold() for name in forwarded}) == len(forwarded)
    kept = forwarded.get("stream_options") or {}
    assert len({name.casefold() for name in kept}) == len(kept)


def test_a_body_that_needs_no_change_is_forwarded_byte_by_byte() -> None:
    body = b' {"st\\u0072eam":true ,"stream_options" :{"include_usage":true},"model":"a",\n'
    body += b'"messages":[{"role":"user"}],"temperature":1.50, "seed":1e2} '
    assert parse_chat(body).upstream_body("a", streams=True) == body


def test_definitions_of_functions_are_in_the_bound_with_what_providers_write_around_them() -> None:
    plain = b'{"model":"a","messages":[{"role":"user","content":"a"}]}'
    functions = b'[{"name":"f"}]'
    with_functions = parse_chat(plain[:-1] + b',"functions":' + functions + b"}")
    with_tools = parse_chat(plain[:-1] + b',"tools":[{"type":"custom"}]}')
    before = parse_chat(plain)
    assert with_functions.input_tokens_max - before.input_tokens_max == len(functions) + 256
    assert with_tools.input_tokens_max - before.input_tokens_max == len('[{"type":"custom"}]') + 256
    counted = [chat.input_tokens_counted("o200k_base") for chat in (before, with_functions)]
    assert counted[1] - counted[0] == len(functions) + 256
