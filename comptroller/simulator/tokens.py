"""Token counts, by the tokenizer that the real models publish.

The bill is only worth comparing with if both sides count with the same vocabulary; everything
that is done with the counts (prices, totals) is computed here independently of the product.
"""

from collections.abc import Iterable

from comptroller.simulator.requests import ChatRequest, ContentPart, Message
from core_rs import count_tokens

# How OpenAI frames a chat (its cookbook, "How to count tokens with tiktoken"): three tokens
# around each message, one more for a name, three that open the answer.
MESSAGE_TOKENS = 3
NAME_TOKENS = 1
ANSWER_TOKENS = 3
# A picture in low detail; sizes are not simulated.
IMAGE_TOKENS = 85

__all__ = ["count_prompt", "count_tokens"]


def count_prompt(request: ChatRequest, vocabulary: str) -> int:
    """Count the prompt tokens of a chat request, tool definitions by their JSON as sent."""
    messages = sum(_count_message(message, vocabulary) for message in request.messages)
    tools = count_tokens(vocabulary, request.tools_json) if request.tools_json else 0
    return messages + tools + ANSWER_TOKENS


def _count_message(message: Message, vocabulary: str) -> int:
    texts = [message.role, message.name or "", *message.texts()]
    name_tokens = NAME_TOKENS if message.name else 0
    return (
        MESSAGE_TOKENS
        + name_tokens
        + sum(count_tokens(vocabulary, text) for text in texts)
        + _count_images(message.parts())
    )


def _count_images(parts: Iterable[ContentPart]) -> int:
    return sum(IMAGE_TOKENS for part in parts if part.type == "image_url")
