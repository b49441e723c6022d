"""Rust core of Comptroller: the stubs of the extension module `core_rs._core`."""

from typing import Self, TypedDict, Unpack, final

ENGINE_VERSION: str

# --- wire: strict JSON, chat-completions facts, streams, token counts (core_rs/src/wire.rs) ---

class WireError(Exception):
    """Bytes of a caller or a provider that cannot be trusted.

    `code` is stable. For callers: `malformed_json`, `json_too_deep`, `duplicate_field`,
    `invalid_value`, `unsupported_parameter`, `cost_not_bounded`. For providers:
    `upstream_bad_response`, `upstream_response_too_large`.
    `param` is the path of the value, such as `messages[3].content`, where one is known;
    `offset` the byte at which the fault was seen.
    """

    code: str
    message: str
    param: str | None
    offset: int

def scan_object(body: bytes) -> list[tuple[str, int, int]]:
    """Check a whole request body and give its top-level members.

    Each is (name after unescaping, start, end): `body[start:end]` is the value as sent, without
    the white space around it. Nothing else may change a value than splicing into these spans.
    Refused: everything RFC 8259 refuses, byte order marks, lone surrogates, deeper than 64,
    numbers no double holds or longer than 64 bytes, keys with control characters, more than 256
    members at the top or 4096 in any object, and two keys of one object that are the same after
    unescaping and Unicode case folding. Inside `tools[*].function.parameters`,
    `response_format.json_schema.schema` and `metadata` only exactly equal keys are the same.

    Raises WireError: malformed_json, json_too_deep, duplicate_field, invalid_value.
    """

@final
class ChatFacts:
    """What admission needs to know about the input of a chat request."""

    @property
    def message_count(self) -> int: ...
    @property
    def input_tokens_max(self) -> int:
        """Tokens that the input cannot exceed on any byte-level tokenizer, text parts only."""
    @property
    def unbounded_parts(self) -> tuple[str, ...]:
        """Kinds of content whose tokens its bytes do not bound, sorted: `file`, `image_url`."""

def chat_facts(
    body: bytes,
    messages: tuple[int, int],
    tools: tuple[int, int] | None = None,
    response_format: tuple[int, int] | None = None,
) -> ChatFacts:
    """Read the messages of a scanned body and check its tools; the pairs are spans of it.

    Raises WireError: invalid_value if messages is not a list of 1 to 4096 objects, each with a
    string `role` and a `content` that is a string, a list of parts with a string `type`, null or
    left out, or if tools is not null or a list of objects with a string `type`;
    unsupported_parameter for a field of a message, text part or tool that could carry what is not
    priced; cost_not_bounded for a tool that the provider runs.
    """

def count_chat_tokens(
    vocabulary: str,
    messages_json: bytes,
    tools_json: bytes | None = None,
    response_format_json: bytes | None = None,
) -> int:
    """Count the tokens of a chat input exactly enough never to be below what is billed.

    Text by BPE, the frame of each message by the published allowance, tools and response format
    by their bytes. About 50 µs per KB; never above `ChatFacts.input_tokens_max`.

    Raises WireError like `chat_facts`; ValueError for an unknown vocabulary.
    """

def secret_checksum(stem: str) -> str:
    """Compute the six base62 digits that end a secret: the CRC-32 of all before them."""

def secret_digest(pepper: bytes, secret: str) -> bytes:
    """Compute what is stored and looked up in place of a secret: HMAC-SHA256, 32 bytes."""

def vocabulary_of(model: str) -> str | None:
    """Name the bundled vocabulary of a model: `o200k_base`, `cl100k_base`; None if it is closed."""

def count_tokens(vocabulary: str, text: str) -> int:
    """Count the tokens of a text. Raises ValueError for an unknown vocabulary."""

def warm_vocabularies() -> None:
    """Load both vocabularies now (tens of milliseconds each) instead of at their first use."""

@final
class ReportedUsage:
    """The usage a provider reported, in tokens; each is between 0 and 2**40.

    As in the chat-completions format the details are contained in the totals. A detail that was
    not sent is 0.
    """

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cache_read_tokens(self) -> int: ...
    @property
    def cache_write_tokens(self) -> int: ...
    @property
    def input_audio_tokens(self) -> int: ...
    @property
    def output_audio_tokens(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int: ...

@final
class StreamMeter:
    """Relay one chat-completions SSE stream and see what it says about itself.

    Feed every chunk, relay what comes back. A frame is relayed when it is complete and
    understood, as it was sent; with `strip_usage` the frame that only carries usage is dropped
    and `usage` members are cut out of the others.
    """

    def __new__(cls, *, strip_usage: bool, vocabulary: str | None = None) -> Self:
        """Start a stream. `vocabulary` is what `generated_tokens` counts with; None: bytes.

        Raises ValueError for an unknown vocabulary.
        """
    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk and give the bytes to relay now, often the same object, maybe empty.

        If a frame in the chunk cannot be trusted, what came before it is returned and `failure`
        says why. Raises WireError (upstream_bad_response, upstream_response_too_large) when fed
        after that.
        """
    def finish(self) -> bytes:
        """Say that the stream ended and give the last bytes to relay.

        Raises WireError: upstream_bad_response if the stream failed or ended inside a frame.
        """
    @property
    def failure(self) -> str | None:
        """Why nothing more is relayed: `malformed_frame`, `frame_too_large`, `truncated_frame`."""
    @property
    def usage(self) -> ReportedUsage | None:
        """The last usage that could be believed."""
    @property
    def usage_fault(self) -> str | None:
        """Why a usage was not taken: `malformed`, `negative`, `absurd`, `contradictory`.

        None if all that came were taken or none came (`usage` is None then).
        """
    @property
    def is_done(self) -> bool:
        """Whether `[DONE]` was seen."""
    @property
    def upstream_error(self) -> bytes | None:
        """The JSON of the first `error` the provider sent in the stream; its frame is relayed."""
    @property
    def model(self) -> str | None:
        """The model the answer names (the first one)."""
    @property
    def finish_reasons(self) -> dict[int, str]:
        """Finish reason by choice index, as far as seen."""
    @property
    def has_generated(self) -> bool:
        """Whether any generated text was seen."""
    @property
    def generated_bytes(self) -> int:
        """UTF-8 bytes of text, refusal, reasoning and tool calls: bounds the visible tokens."""
    def generated_tokens(self) -> int:
        """Count the visible tokens so far; a call costs only what is new since the last.

        Text beyond 8 MiB not counted yet, and all text without a vocabulary, counts one token a
        byte. Hidden reasoning is not in it.
        """

@final
class ChatAnswer:
    """What a chat-completions answer in one piece says about itself."""

    @property
    def usage(self) -> ReportedUsage | None: ...
    @property
    def usage_fault(self) -> str | None:
        """Why the usage was not taken, as `StreamMeter.usage_fault`."""
    @property
    def model(self) -> str | None: ...
    @property
    def finish_reasons(self) -> dict[int, str]: ...
    @property
    def upstream_error(self) -> bytes | None:
        """The JSON of a top-level `error` member that is not null."""
    @property
    def generated_bytes(self) -> int: ...
    @property
    def generated_tokens(self) -> int | None:
        """Our own count of the visible tokens; None where `usage` is there (not counted then)."""

def parse_chat_answer(body: bytes, vocabulary: str | None = None) -> ChatAnswer:
    """Read the JSON answer of a chat-completions call that did not stream.

    Raises WireError: upstream_bad_response; ValueError for an unknown vocabulary.
    """

@final
class AnswerAssembler:
    """Put the chunks of a stream together to the answer that a plain call would have had.

    Strings of a delta are continued, tool calls matched by their `index`, lists (`logprobs`,
    others) joined; of all else the last value that is not null counts. A usage before more text
    is dropped.
    """

    def __new__(
        cls, *, answer_id: str, created_s: int, model: str, choices: int = 1, bytes_max: int
    ) -> Self:
        """Start an answer with so many choices (1 to 256).

        `answer_id`, `created_s` (seconds since 1970) and `model` stand where the provider says
        nothing. `bytes_max` bounds what is kept: text as written, each value 160 bytes more.

        Raises ValueError for a number of choices out of range.
        """
    def feed(self, chunk: bytes) -> None:
        """Take a chunk of the stream, split anywhere.

        Raises WireError: upstream_bad_response for a frame that cannot be trusted,
        upstream_response_too_large for one over 1 MiB or an answer over `bytes_max`; again when fed
        after that. What came before is kept for `finish_cut`.
        """
    def finish(self) -> bytes:
        """Say that the stream ended, and give the answer as one JSON document.

        Raises WireError: as `feed`, and upstream_bad_response if the stream held an error, or ended
        inside a frame, or without `[DONE]` before each choice had its finish reason.
        """
    def finish_cut(self, *, input_tokens: int, output_tokens: int) -> bytes:
        """Give what was generated so far, also of a stream that failed.

        Choices that have not ended say `length`; the usage counts these tokens.
        """
    @property
    def kept_bytes(self) -> int:
        """What `bytes_max` bounds."""

# --- price: price versions, costs, bounds (core_rs/src/price.rs) ---

class _UsageCounts(TypedDict, total=False):
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    input_text_tokens: int
    output_text_tokens: int
    cache_text_read_tokens: int
    cache_text_write_tokens: int
    cache_text_write_5m_tokens: int
    cache_text_write_1h_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    cache_audio_read_tokens: int
    cache_audio_write_tokens: int
    cache_audio_write_5m_tokens: int
    cache_audio_write_1h_tokens: int
    input_image_tokens: int
    output_image_tokens: int
    cache_image_read_tokens: int
    cache_image_write_tokens: int
    cache_image_write_5m_tokens: int
    cache_image_write_1h_tokens: int
    input_video_tokens: int
    output_video_tokens: int
    cache_video_read_tokens: int
    cache_video_write_tokens: int
    cache_video_write_5m_tokens: int
    cache_video_write_1h_tokens: int
    input_tool_tokens: int
    input_text_tool_tokens: int
    input_audio_tool_tokens: int
    input_image_tool_tokens: int
    input_video_tool_tokens: int
    output_reasoning_tokens: int
    output_text_reasoning_tokens: int
    output_audio_reasoning_tokens: int
    output_image_reasoning_tokens: int
    output_video_reasoning_tokens: int
    output_citation_tokens: int
    output_text_citation_tokens: int
    output_audio_citation_tokens: int
    output_image_citation_tokens: int
    output_video_citation_tokens: int
    input_characters: int
    input_text_messages: int
    audio_seconds: int
    input_audio_seconds: int
    output_audio_seconds: int
    input_pixels: int
    input_document_pages: int
    input_annotated_document_pages: int
    rerank_searches: int
    web_searches: int
    social_searches: int
    storage_searches: int
    code_executions: int

@final
class Usage:
    """What one request used, by unit of the price catalogue.

    Counts overlap as providers report them: `input_tokens` includes `cache_read_tokens`,
    `output_tokens` includes `output_reasoning_tokens`. Each count is 0 to 2**40, 0 when not given.
    Raises `TypeError` for an unknown unit, `OverflowError` for a negative count, `EngineError`
    (`count_out_of_range`) above 2**40.
    """

    def __new__(cls, **counts: Unpack[_UsageCounts]) -> Self: ...
    @property
    def input_tokens(self) -> int:
        """All input tokens, cached ones included."""
    @property
    def output_tokens(self) -> int:
        """All output tokens, reasoning included."""
    @property
    def cache_read_tokens(self) -> int:
        """Input tokens read from the provider's cache."""
    @property
    def cache_write_tokens(self) -> int:
        """Input tokens written to the provider's cache."""
    @property
    def output_reasoning_tokens(self) -> int:
        """Output tokens the model spent on reasoning."""
    def as_dict(self) -> dict[str, int]:
        """Give the counts that are not zero, by unit, in the catalogue's order."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class PriceSheet:
    """An immutable price version: every (provider, model) priced by exact name.

    A price is named by a dense index that `find` gives and that is valid for this sheet only.
    Prices are fixed at the instant of admission: pass the same `at_wall_ns` (UTC, nanoseconds since
    1970) to `bound` and `cost`. `context` holds what selects another list price, for example
    `{"service_tier": "priority"}` or `{"processing": "batch"}`; None is the standard price.
    Amounts are nano units of the sheet's currency, rounded up once.
    Methods raise `EngineError` with the codes `unknown_price`, `contradictory_usage`,
    `count_out_of_range`, `amount_overflow`, `cost_not_bounded`, `invalid_price`.
    """

    def __new__(cls, sheet_json: bytes) -> Self:
        """Load a sheet compiled by `controlplane.pricing.sheet`.

        Raises `EngineError` (`invalid_price_sheet`) naming what is wrong.
        """
    @property
    def version(self) -> str:
        """SHA-256 of the sheet's canonical JSON, 64 hexadecimal digits."""
    @property
    def currency(self) -> str:
        """ISO 4217 code of the currency all prices of the sheet are in."""
    def __len__(self) -> int: ...
    def find(self, provider: str, model: str) -> int | None:
        """Find the price of exactly this model, None when it has none."""
    def context_window(self, price: int) -> int | None:
        """Tell how many input tokens the model takes, None where the catalogue does not say."""
    def input_tiers_cross(self, price: int, tokens: int) -> bool:
        """Tell whether this many input tokens reach beyond the first price tier."""
    def bound(
        self,
        price: int,
        input_tokens: int,
        output_tokens: int,
        choices: int,
        at_wall_ns: int,
        context: dict[str, str] | None = None,
    ) -> int:
        """Bound the cost of a text-only request, in nano units.

        No usage within `input_tokens` and `choices` x `output_tokens` that is settled within 24 h
        of `at_wall_ns` costs more. Raises `EngineError` with `cost_not_bounded` for a model that is
        not priced by tokens or requests, or that searches on its own at a price per search.
        """
    def cost(
        self,
        price: int,
        usage: Usage,
        at_wall_ns: int,
        context: dict[str, str] | None = None,
    ) -> int:
        """Price a usage, in nano units. A price per request is counted once.

        Raises `EngineError` with `contradictory_usage` when a part exceeds its whole.
        """
    def output_picos(
        self, price: int, input_tokens: int, at_wall_ns: int, context: dict[str, str] | None = None
    ) -> int:
        """Find the dearest rate of one output token of a request with so much input, in pico units.

        `bound` of any output is at most `bound` of none plus the output at this rate, rounded up;
        where one list price is in force all day, at most one nano unit less. Raises as `bound`.
        """
    def output_tokens_within(
        self,
        price: int,
        nanos: int,
        input_tokens: int,
        choices: int,
        at_wall_ns: int,
        context: dict[str, str] | None = None,
    ) -> int | None:
        """Find the most output tokens for each choice whose bound fits into `nanos`.

        At most 2**40 (output that is free); None when not even the input fits.
        """

# --- limits: keys, limits, counters, reservations (core_rs/src/engine.rs) ---

class EngineError(Exception):
    """Say that a call was wrong or could not be carried out; nothing was changed.

    `code` is stable: invalid_argument, invalid_json, invalid_policy, invalid_keys, too_many,
    overflow, unknown_key, unknown_organization, organization_not_loaded, unknown_reservation,
    duplicate_reservation, already_settled, already_released, unbooked_full,
    no_exchange_rate, poisoned.
    """

    code: str

@final
class Engine:
    """Hold keys, limits, counters and open reservations of all organizations; decide and settle.

    Spend is in nano units of the organization's currency (1 unit = 10**9), `wall_ns` in
    nanoseconds since the Unix epoch, `mono_ns` in nanoseconds of any clock that never goes back.
    Safe to share between threads: one lock per organization. An organization never sees time go
    back: an earlier instant counts as the latest one it has seen.
    """

    def __init__(self) -> None: ...
    def load_keys(self, keys_json: bytes) -> int:
        """Insert or replace the listed keys with their secrets; return how many were given.

        A list of `{"id", "organization_id", "team_id", "member_id", "cost_center_id", "pools",
        "state", "expires_at_ns", "secrets": [{"digest", "expires_at_ns"}]}`; all or none are
        applied.

        Raises EngineError: invalid_json, invalid_keys, too_many.
        """

    def missing_counters(self, snapshot_json: bytes, wall_ns: int, mono_ns: int) -> bytes:
        """List as JSON the counters that the snapshot needs and that are not kept yet.

        Each is `{"scope": {"kind", "id"}, "where", "resource", "window", "starts_at_ns",
        "ends_at_ns"}`, half-open on the wall clock; a rolling window from 61 buckets ago to now.
        Changes nothing.

        Raises EngineError: invalid_json, invalid_policy, too_many.
        """

    def load_organization(
        self, snapshot_json: bytes, seeds_json: bytes, wall_ns: int, mono_ns: int
    ) -> None:
        """Put a policy snapshot in force for the very next request, at once and as a whole.

        Counters and open reservations stay. A counter not kept so far starts from its seed, the
        settlements after the last `booked_through`, and what open reservations hold. `seeds_json`
        lists specifications of `missing_counters`, each with `"entries": [[wall_ns, amount], …]`:
        for a calendar window the instant of admission, for a rolling one that of settlement (of
        admission, for requests). Seeds must hold exactly what was booked through the last
        `booked_through`: read them and load while nothing books.

        Raises EngineError: invalid_json, invalid_policy, too_many, overflow.
        """

    def authenticate(self, digest: bytes, wall_ns: int) -> Principal | None:
        """Return whom a secret belongs to; None if unknown, revoked or expired (key or secret).

        A disabled key is returned, with its state.

        Raises EngineError: invalid_argument (not 32 bytes), organization_not_loaded.
        """

    def missing_shared(self, snapshot_json: bytes, wall_ns: int, mono_ns: int) -> bytes:
        """List as JSON the counters that limits of the installation need and that are not kept.

        Raises EngineError: invalid_json, invalid_policy, too_many.
        """

    def load_shared(
        self, snapshot_json: bytes, seeds_json: bytes, wall_ns: int, mono_ns: int
    ) -> None:
        """Put the limits of the installation and its providers in force for the next request.

        `{"version", "limits"}`; their spend is what providers bill, in the price sheet's currency.

        Raises EngineError: invalid_json, invalid_policy, too_many, overflow.
        """

    def shared_states(self, wall_ns: int, mono_ns: int) -> bytes:
        """List as JSON the state of every limit that `load_shared` put in force."""

    def refused_by_rule(
        self,
        key: int,
        *,
        model: str,
        provider: str,
        endpoint: str,
        request_class: str,
        tier: str | None = None,
        feature: str | None = None,
    ) -> tuple[str, str] | None:
        """Return why static policy refuses a use, and the kind of scope; None if all allow it.

        Of several codes the first in the order of the precedence, of several scopes the widest.

        Raises EngineError: unknown_key, organization_not_loaded.
        """

    def ruling_json(self, key: int) -> bytes:
        """Tell as JSON what static policy holds for the requests of a key.

        `{"tokens_per_request_max", "retry_storm_max", "output_tokens_default", "hold_wait_s",
        "on_cut", "refusal_detail", "fixed", "required"}`.

        Raises EngineError: unknown_key, organization_not_loaded.
        """

    def charge(self, key: int, cost_nanos: int, wall_ns: int) -> int:
        """Return what the key's organization is charged for what a provider bills.

        Raises EngineError: no_exchange_rate, overflow, unknown_key, organization_not_loaded.
        """

    def admit(
        self, key: int, reservation_id: bytes, ask: Ask, wall_ns: int, mono_ns: int
    ) -> Admission | Refusal | Waiting | Diversion:
        """Reserve on every limit of the key's path, or leave no trace.

        `reservation_id` is 16 bytes, new. A request that waits is known by it: an effect tells
        what becomes of it.

        Raises EngineError: invalid_argument, unknown_key, organization_not_loaded,
        duplicate_reservation, too_many, unbooked_full, no_exchange_rate, overflow.
        """

    def preview(
        self, key: int, ask: Ask, wall_ns: int, mono_ns: int
    ) -> Admission | Refusal | Waiting | Diversion:
        """Decide as `admit` would at this instant, with the same figures, and reserve nothing.

        Raises EngineError: as `admit`, but for duplicate_reservation.
        """

    def give_up(
        self, organization: int, reservation_id: bytes, wall_ns: int, mono_ns: int
    ) -> Admission | Refusal | Waiting | Diversion:
        """Take a request out of the line before its time is up, and say what becomes of it.

        Raises EngineError: unknown_reservation (it does not wait any more), and as `admit`.
        """

    def leave(self, organization: int, reservation_id: bytes, wall_ns: int, mono_ns: int) -> bool:
        """Forget a request in the line whose client left; False if it does not wait any more.

        Raises EngineError: invalid_argument, organization_not_loaded, overflow.
        """

    def go_on(self, organization: int, wall_ns: int, mono_ns: int) -> bool:
        """Let time pass: breakers close, waits end, periods begin; effects tell of it.

        Returns whether anybody still waits, or a breaker is still open.

        Raises EngineError: organization_not_loaded, overflow, invalid_argument.
        """

    def has_effects(self, organization: int) -> bool:
        """Tell whether there is something to be taken.

        Raises EngineError: organization_not_loaded.
        """

    def take_effects(self, organization: int) -> list[Effect]:
        """Take what has happened to others than the requests that were acted on, in order.

        Raises EngineError: organization_not_loaded.
        """

    def key_limits(self, key: int, wall_ns: int, mono_ns: int) -> KeyLimits:
        """Tell what every limit of the key's path stands at; other limits are not looked at.

        Raises EngineError: unknown_key, organization_not_loaded.
        """

    def extend(
        self,
        organization: int,
        reservation_id: bytes,
        output_tokens: int,
        wall_ns: int,
        mono_ns: int,
    ) -> int | None:
        """Let a stream relay so many output tokens; return how many it may, which can be more.

        None where a hard limit has no room: the youngest stream on it is cut, which may be this
        one, and an effect tells when there is room. Beyond the bound nothing is held.

        Raises EngineError: invalid_argument, unknown_reservation, already_settled,
        already_released, organization_not_loaded, overflow.
        """

    def progress(
        self,
        organization: int,
        reservation_id: bytes,
        cost_nanos: int,
        tokens: int,
        wall_ns: int,
        mono_ns: int,
    ) -> None:
        """Report what an open reservation has cost and used so far (cumulative).

        Metered limits see it at once. Less than reported before changes nothing; more than is
        held raises the hold.

        Raises EngineError: as `extend`.
        """

    def settle(
        self,
        organization: int,
        reservation_id: bytes,
        cost_nanos: int,
        tokens: int,
        output_tokens: int | None,
        wall_ns: int,
        mono_ns: int,
    ) -> Settlement:
        """Book what a request really cost, in the period that admitted it, and end its hold.

        Applies even beyond the hold and the caps. From `output_tokens` the length of answers is
        learned; None where it says nothing of it. Repeated, it returns the first result with
        `first` False, until `booked_through` has passed it.

        Raises EngineError: invalid_argument, unknown_reservation, already_released,
        organization_not_loaded, overflow.
        """

    def release(self, organization: int, reservation_id: bytes, wall_ns: int, mono_ns: int) -> bool:
        """End a reservation as if it had never been; True the first time, False when repeated.

        Raises EngineError: invalid_argument, unknown_reservation, already_settled,
        organization_not_loaded.
        """

    def booked_through(self, organization: int, seq: int) -> None:
        """Say that all settlements up to and including `seq` are in the ledger.

        Their outcomes are forgotten. At 65,536 unbooked settlements `admit` raises unbooked_full.

        Raises EngineError: invalid_argument (`seq` not handed out yet), organization_not_loaded.
        """

    def limit_states(self, organization_id: str, wall_ns: int, mono_ns: int) -> bytes:
        """List as JSON the state of every limit of an organization.

        Each is `{"limit_id", "kind", "scope", "where", "resource", "window", "time_zone", "mode",
        "hold", "cap", "settled", "used", "held", "starts_at_ns", "ends_at_ns", "open",
        "frees_at_ns", "empties_at_ns"}`.
        `used` is settled + what open requests have cost so far (what metered limits measure),
        `held` the rest of the holds (hard limits measure used + held). `open` and `frees_at_ns`
        are null but for breakers; `empties_at_ns` is null where nothing is used.

        Raises EngineError: unknown_organization, organization_not_loaded.
        """

    def scope_states(
        self, organization_id: str, scope_kind: str, scope_id: str, wall_ns: int, mono_ns: int
    ) -> bytes:
        """List as JSON the state of every limit of one scope, each as in `limit_states`.

        `scope_kind` is organization, team, member or key; none of an unknown scope. Takes no
        longer for the other limits of the organization.

        Raises EngineError: unknown_organization, organization_not_loaded, invalid_argument.
        """

    def organization_index(self, organization_id: str) -> int:
        """Return the number by which the other methods know an organization.

        Raises EngineError: unknown_organization.
        """

    def organization_id(self, organization: int) -> str:
        """Return the id of the organization that has this number.

        Raises EngineError: unknown_organization.
        """

    def open_reservations(self, organization_id: str) -> int:
        """Count the open reservations of an organization.

        Raises EngineError: unknown_organization, organization_not_loaded.
        """

@final
class Ask:
    """What a request asks for; money in nano units of the price sheet's currency.

    `model` is the name callers use of the model that serves. `bound_nanos` is the most that it
    costs, `input_nanos` the most without an answer, `output_picos` the dearest price of an output
    token. `output_tokens_max` bounds all choices together. `step_tokens` stay free ahead of a
    stream. `streams`: `plain` (an answer in one piece), `stream` (the caller wants one),
    `assembled` (one piece, which the proxy can put together from a stream where money is short).
    `taken` lists limits with how many of their steps the request has passed.
    """

    def __new__(
        cls,
        *,
        model: str,
        provider: str,
        input_tokens: int,
        output_tokens_max: int,
        bound_nanos: int,
        input_nanos: int,
        output_picos: int,
        tier: str | None = None,
        feature: str | None = None,
        agent: str | None = None,
        end_user: str | None = None,
        session: str | None = None,
        choices: int = 1,
        step_tokens: int = 0,
        calibration: int = 1,
        streams: str = "plain",
        may_wait: bool = False,
        taken: list[tuple[str, int]] | None = None,
    ) -> Self:
        """Make one.

        Raises EngineError: invalid_argument.
        """

@final
class Waiting:
    """Say that a request waits in line; nothing is held for it, and an effect ends it."""

    @property
    def limit_id(self) -> str: ...
    @property
    def scope_kind(self) -> str: ...
    @property
    def is_queued(self) -> bool:
        """Whether a step of the limit lets it queue, also where no open request is in its way."""
    @property
    def timeout_ns(self) -> int: ...

@final
class Diversion:
    """Say that a step of a limit asks for something before the request may pass."""

    @property
    def limit_id(self) -> str: ...
    @property
    def scope_kind(self) -> str: ...
    @property
    def scope_id(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def window(self) -> str: ...
    @property
    def step(self) -> int:
        """Which of the limit's steps, from 0."""
    @property
    def percent(self) -> int: ...
    @property
    def action(self) -> str:
        """`downgrade` or `confirm`."""
    @property
    def model(self) -> str | None:
        """What to serve it by."""
    @property
    def policy_version(self) -> str: ...

@final
class Effect:
    """Something that happened to another request, or to a breaker.

    `kind` is `admitted` (a request that waited; `decision` is its Admission), `ended` (its Refusal
    or Diversion), `granted` (a stream may relay `tokens`), `cut` (a stream is to be closed at once
    for the limit of the Refusal), `breaker` (it opened or closed; the figures are then given).
    """

    @property
    def kind(self) -> str: ...
    @property
    def reservation_id(self) -> bytes | None: ...
    @property
    def decision(self) -> Admission | Refusal | Diversion | None: ...
    @property
    def tokens(self) -> int | None: ...
    @property
    def limit_id(self) -> str | None: ...
    @property
    def scope_kind(self) -> str | None: ...
    @property
    def scope_id(self) -> str | None: ...
    @property
    def is_open(self) -> bool | None: ...
    @property
    def sum(self) -> int | None: ...
    @property
    def cap(self) -> int | None: ...
    @property
    def at_wall_ns(self) -> int | None: ...

@final
class Principal:
    """Name a key, whom it acts for, and the policy in force when it was looked up."""

    @property
    def key(self) -> int: ...
    @property
    def organization(self) -> int: ...
    @property
    def key_id(self) -> str: ...
    @property
    def organization_id(self) -> str: ...
    @property
    def team_id(self) -> str | None: ...
    @property
    def member_id(self) -> str | None: ...
    @property
    def cost_center_id(self) -> str | None: ...
    @property
    def state(self) -> str:
        """`active` or `disabled`."""
    @property
    def organization_state(self) -> str:
        """`active`, `suspended` or `archived`."""
    @property
    def policy_version(self) -> str: ...

@final
class KeyLimits:
    """Tell what the limits of a key's path stand at, and whose they are."""

    @property
    def team_id(self) -> str | None: ...
    @property
    def member_id(self) -> str | None: ...
    @property
    def policy_version(self) -> str: ...
    def states_json(self) -> bytes:
        """List the states as `Engine.limit_states` does, the narrowest scope first."""

@final
class Admission:
    """Tell what was reserved, and what is left."""

    @property
    def team_id(self) -> str | None:
        """Team of the key when this was decided, which may have moved since it was looked up."""
    @property
    def member_id(self) -> str | None:
        """Owner of the key when this was decided."""
    @property
    def cost_center_id(self) -> str | None:
        """Cost center of the key when this was decided."""
    @property
    def pool_ids(self) -> list[str]:
        """Pools of the key when this was decided."""
    @property
    def spend_nanos(self) -> int:
        """Held by limits that hold what is expected: the charge in nano units."""
    @property
    def tokens(self) -> int:
        """Held by the same."""
    @property
    def bound_nanos(self) -> int:
        """Held by all other limits: the most that it can be charged."""
    @property
    def bound_cost_nanos(self) -> int:
        """The most that the provider can bill, in the price sheet's currency."""
    @property
    def bound_tokens(self) -> int:
        """The most that it can use."""
    @property
    def calibration(self) -> int:
        """What the bound was multiplied by."""
    @property
    def output_tokens_allowed(self) -> int:
        """Output tokens that may be relayed before `extend`."""
    @property
    def extendable(self) -> bool:
        """Whether the provider is to be asked for a stream, which the hold follows."""
    @property
    def admitted_wall_ns(self) -> int:
        """Instant whose calendar periods count it: the latest the organization has seen."""
    @property
    def policy_version(self) -> str: ...
    @property
    def remaining_spend_nanos(self) -> int | None:
        """Least room any hard spend limit has left after this; None without such a limit."""
    @property
    def requests_limit(self) -> int | None:
        """Cap of the key's tightest rate limit on requests."""
    @property
    def requests_remaining(self) -> int | None: ...
    @property
    def requests_reset_ns(self) -> int | None:
        """Nanoseconds until its window is empty if nothing is added."""
    @property
    def tokens_limit(self) -> int | None:
        """Cap of the key's tightest rate limit on tokens."""
    @property
    def tokens_remaining(self) -> int | None: ...
    @property
    def tokens_reset_ns(self) -> int | None:
        """Nanoseconds until its window is empty if nothing is added."""
    def seen_json(self) -> bytes:
        """List what the decision saw before it added: `[{"limit_id", "used", "held", "cap"}]`."""

@final
class Refusal:
    """Say which limit refused, with its figures, and when the request can succeed.

    Instant and `waits_for` are those of the refusing limit that frees last. `kind` is budget,
    balance, breaker, rate, quota or concurrency; or `key`, `organization` when their state refuses,
    and then all that describes a limit is None.
    """

    @property
    def team_id(self) -> str | None:
        """Team of the key when this was decided, which may have moved since it was looked up."""
    @property
    def member_id(self) -> str | None:
        """Owner of the key when this was decided."""
    @property
    def cost_center_id(self) -> str | None:
        """Cost center of the key when this was decided."""
    @property
    def code(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def limit_id(self) -> str | None: ...
    @property
    def scope_kind(self) -> str: ...
    @property
    def scope_id(self) -> str: ...
    @property
    def resource(self) -> str | None:
        """`spend`, `requests`, `tokens` or `concurrency`."""
    @property
    def window(self) -> str | None:
        """`rolling_60s`, `calendar_day`, `lifetime` and so on: the kind and what it spans."""
    @property
    def time_zone(self) -> str | None: ...
    @property
    def mode(self) -> str | None: ...
    @property
    def cap(self) -> int | None: ...
    @property
    def used(self) -> int | None: ...
    @property
    def held(self) -> int | None: ...
    @property
    def requested(self) -> int | None: ...
    @property
    def frees_at_wall_ns(self) -> int | None: ...
    @property
    def retry_after_ns(self) -> int | None: ...
    @property
    def waits_for(self) -> str | None:
        """`open_requests` (at no known instant), `period`, `top_up` or `never`."""
    @property
    def output_tokens_that_fit(self) -> int | None:
        """Output tokens with which every limit on money has room; None if money is not short."""
    @property
    def fitting_scope_kind(self) -> str | None:
        """Whose limit allows no more than these."""
    @property
    def policy_version(self) -> str: ...
    def seen_json(self) -> bytes:
        """List what the decision saw: `[{"limit_id", "used", "held", "cap"}]`."""

@final
class Settlement:
    """Tell what was booked."""

    @property
    def first(self) -> bool:
        """False when the reservation had been settled before."""
    @property
    def seq(self) -> int:
        """Number of the settlement in its organization, from 1."""
    @property
    def spend_nanos(self) -> int:
        """The charge, in nano units of the organization's currency."""
    @property
    def cost_nanos(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def bound_ratio(self) -> int:
        """How many times its bound without calibration it cost, rounded up, at least 1."""
    @property
    def crossed(self) -> list[tuple[str, int, int, int, int, int]]:
        """Shares of caps that were reached by it.

        Limit id, start of the period in wall nanoseconds, percent, how often it was told before in
        the period, what is settled, the cap.
        """
    @property
    def overrun_nanos(self) -> int:
        """Spend beyond what was held."""
    @property
    def exceeded(self) -> list[str]:
        """Hard limits that are over their caps after this settlement."""
