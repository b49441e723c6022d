"""Prompt tokens by the published rule; words that are one token each."""

import msgspec
import pytest

from comptroller.simulator.requests import read_chat_request
from comptroller.simulator.tokens import count_prompt, count_tokens
from comptroller.simulator.words import VOCABULARIES, WORDS_MIN, single_token_words, wide_words


def prompt_tokens(*messages: dict[str, object], **fields: object) -> int:
    document = {"model": "gpt-4o", "messages": messages, **fields}
    return count_prompt(read_chat_request(msgspec.json.encode(document)), "o200k_base")


def test_the_example_of_the_openai_cookbook_counts_as_published() -> None:
    messages = [
        (
            "system",
            None,
            "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
        ),
        ("system", "example_user", "New synergies will help drive top-line growth."),
        ("system", "example_assistant", "Things working well together will increase revenue."),
        (
            "system",
            "example_user",
            "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        ),
        (
            "system",
            "example_assistant",
            "Let's talk later when we're less busy about how to do better.",
        ),
        (
            "user",
            None,
            "This late pivot means we don't have time to boil the ocean for the client deliverable.",
        ),
    ]
    documents = [
        {"role": role, "content": content} | ({"name": name} if name else {})
        for role, name, content in messages
    ]
    assert prompt_tokens(*documents) == 124  # gpt-4o; 129 with cl100k_base


def test_parts_calls_and_pictures_are_counted() -> None:
    plain = prompt_tokens({"role": "user", "content": ""})
    assert plain == 3 + 1 + 3
    text = {"type": "text", "text": " river"}
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    assert prompt_tokens({"role": "user", "content": [text, text]}) == plain + 2
    assert prompt_tokens({"role": "user", "content": [text, picture]}) == plain + 1 + 85
    call = {"id": "1", "type": "function", "function": {"name": "river", "arguments": " stone"}}
    assert prompt_tokens({"role": "user", "content": None, "tool_calls": [call]}) == plain + 2


def test_tools_are_counted_by_their_json_as_sent() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    plain = prompt_tokens({"role": "user", "content": ""})
    json = msgspec.json.encode([tool]).decode()
    expected = plain + count_tokens("o200k_base", json)
    assert prompt_tokens({"role": "user", "content": ""}, tools=[tool]) == expected


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_words_are_one_token_each_and_add_up(vocabulary: str) -> None:
    words = single_token_words()
    assert len(words) >= WORDS_MIN
    for chosen in (words, wide_words()):
        assert {count_tokens(vocabulary, word) for word in chosen} == {1}
        assert count_tokens(vocabulary, "".join(chosen)) == len(chosen)
    assert not any(word.isascii() for word in wide_words())
