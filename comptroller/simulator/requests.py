"""What the simulated provider reads of a chat-completions request, and what it refuses."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from comptroller.simulator.directives import Directives, read_directives

CHOICES_MAX = 128
STOPS_MAX = 4
TOOLS_MAX = 128


class BadRequest(Exception):
    """A request that a real provider would answer with an error of its own."""

    def __init__(
        self, message: str, *, code: str, param: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.status = status


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(msgspec.Struct, frozen=True):
    """The function half of a tool call that an assistant's message repeats."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call that an assistant's message repeats."""

    function: CalledFunction | None = None


class Message(msgspec.Struct, frozen=True):
    """One message of the conversation."""

    role: str
    content: str | tuple[ContentPart, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None

    def parts(self) -> tuple[ContentPart, ...]:
        """List the parts of a content that has parts."""
        return self.content if isinstance(self.content, tuple) else ()

    def texts(self) -> Iterator[str]:
        """Yield every text of the message that counts as tokens, without role and name."""
        if isinstance(self.content, str):
            yield self.content
        for part in self.parts():
            yield part.text or part.refusal or ""
        for call in self.tool_calls or ():
            if call.function is not None:
                yield call.function.name
                yield call.function.arguments


class Function(msgspec.Struct, frozen=True):
    """A function that the caller offers."""

    name: str
    parameters: dict[str, Any] = {}


class Tool(msgspec.Struct, frozen=True):
    """A tool that the caller offers."""

    function: Function
    type: str = "function"


class StreamOptions(msgspec.Struct, frozen=True):
    """Options of a streamed answer."""

    include_usage: bool = False


class _Body(msgspec.Struct, frozen=True):
    model: str
    messages: Annotated[tuple[Message, ...], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | Annotated[tuple[str, ...], msgspec.Meta(max_length=STOPS_MAX)] | None = None
    seed: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: Any = None


class ChatRequest(msgspec.Struct, frozen=True):
    """A chat-completions request, checked, with the directives found in its messages."""

    model: str
    messages: tuple[Message, ...]
    directives: Directives
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    output_tokens_max: int | None = None
    stops: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tools_json: str = ""
    tool_choice: Any = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_tools = msgspec.json.Decoder(
    Annotated[tuple[Tool, ...], msgspec.Meta(max_length=TOOLS_MAX)] | None
).decode


def read_chat_request(body: bytes) -> ChatRequest:
    """Read and check a request body.

    Raises BadRequest, as a real provider refuses the same faults.
    """
    try:
        parsed = _decode_body(body)
        tools = _decode_tools(parsed.tools) or ()
        directives = read_directives(_user_texts(parsed.messages))
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), code="invalid_value", param=_param(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"We could not parse the JSON body of your request: {error}"
        raise BadRequest(message, code="malformed_json") from None
    except ValueError as error:
        raise BadRequest(str(error), code="invalid_value", param="messages") from None
    return _checked(parsed, tools, directives)


def _checked(body: _Body, tools: tuple[Tool, ...], directives: Directives) -> ChatRequest:
    options = body.stream_options
    if options is not None and not body.stream:
        message = "'stream_options' is only allowed when 'stream' is enabled."
        raise BadRequest(message, code="invalid_value", param="stream_options")
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        message = "Set 'max_tokens' or 'max_completion_tokens', not both."
        raise BadRequest(message, code="invalid_parameter_combination", param="max_tokens")
    return ChatRequest(
        model=body.model,
        messages=body.messages,
        directives=directives,
        stream=bool(body.stream),
        include_usage=options is not None and options.include_usage,
        choices=body.n or 1,
        output_tokens_max=body.max_completion_tokens or body.max_tokens,
        stops=(body.stop,) if isinstance(body.stop, str) else body.stop or (),
        seed=body.seed,
        tools=tools,
        tools_json=bytes(body.tools).decode() if tools else "",
        tool_choice=body.tool_choice,
    )


def _user_texts(messages: tuple[Message, ...]) -> Iterator[str]:
    return (text for message in messages if message.role == "user" for text in message.texts())


def _param(message: str) -> str | None:
    """Take the path `$.a.b` out of msgspec's message."""
    _, found, path = message.rpartition("`$.")
    return path.rstrip("`") if found else None
