"""Which deployment serves a model, and what is known about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from core_rs import PriceSheet, vocabulary_of
from proxy.errors import Problem
from proxy.upstream import UpstreamPool

UPSTREAMS_MAX = 100
MODELS_MAX = 10_000


class UpstreamsError(ValueError):
    """The upstreams file cannot be used; the message says where."""


TimeoutS = Annotated[float, msgspec.Meta(gt=0, le=3_600)]


class ModelPriceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price the operator states, in decimal strings: per request, or per million tokens."""

    request: str | None = None
    input_per_million: str | None = None
    output_per_million: str | None = None


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of an upstream.

    `name` is what callers ask for, `upstream_model` what the provider calls it. Without a `price`
    the catalogue's price of `upstream_model` at the upstream's `provider` applies.
    `output_tokens_max` is the most the model can generate, where the operator knows it.
    `all_tokens_visible` is false for models that bill reasoning they do not show.
    `on_disconnect`: `drain` reads on after a client left, `cancel` closes the connection of a
    stream, for providers that then stop generating and billing, `abort_tail_tokens` later at most.
    `tier` is what rules and limits know the model's class by. `can_stream` is false for what only
    answers in one piece. `reasoning_tokens_per_s` is how fast it bills what it does not show.
    `output_cap_field` is how the provider calls the most tokens of an answer.
    """

    name: str
    upstream_model: str | None = None
    price: ModelPriceEntry | None = None
    output_tokens_max: int | None = None
    vocabulary: str | None = None
    all_tokens_visible: bool = True
    on_disconnect: Literal["drain", "cancel"] = "drain"
    abort_tail_tokens: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    tier: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    can_stream: bool = True
    reasoning_tokens_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    output_cap_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


class UpstreamEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One provider address.

    `base_url` ends where `/chat/completions` begins, usually in `/v1`. `key` is `env:NAME`.
    `provider` names the price catalogue's provider; `private_addresses` lists hosts or networks
    that may be contacted although they are not public. `connect_timeout_s` bounds a new
    connection, `silence_timeout_s` a pause within an answer: models that think in silence take
    minutes.
    """

    name: str
    base_url: str
    provider: str
    models: list[ModelEntry]
    key: str | None = None
    private_addresses: list[str] = []
    connect_timeout_s: TimeoutS = 5.0
    silence_timeout_s: TimeoutS = 300.0


class UpstreamsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    upstreams: list[UpstreamEntry]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model at a provider, ready to be called."""

    model: str
    upstream_model: str
    provider: str
    pool: UpstreamPool
    authorization: bytes | None
    price: int | None
    vocabulary: str | None
    output_tokens_max: int | None
    all_tokens_visible: bool
    on_disconnect: Literal["drain", "cancel"]
    abort_tail_tokens: int
    tier: str | None = None
    can_stream: bool = True
    reasoning_tokens_per_s: int | None = None
    output_cap_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    @property
    def follows_streams(self) -> bool:
        """Whether the hold of a request can follow its stream, which is cut where room ends.

        That takes a provider that stops billing when it is cut off, and tokens that are seen or
        come at a known pace.
        """
        is_measured = self.all_tokens_visible or self.reasoning_tokens_per_s is not None
        return self.on_disconnect == "cancel" and self.can_stream and is_measured


class Catalogue:
    """The deployments of this installation, by the model name callers use."""

    def __init__(self, deployments: Iterable[Deployment], sheet: PriceSheet) -> None:
        self.sheet = sheet
        self._by_model = {each.model: each for each in deployments}

    def route(self, model: str) -> Deployment:
        """Find who serves exactly this model.

        Raises `Problem` (404) for a name that no deployment has.
        """
        deployment = self.find(model)
        if deployment is None:
            raise Problem(
                404, "model_not_found", f"No deployment serves the model {model[:100]!r}.", "model"
            )
        return deployment

    def find(self, model: str) -> Deployment | None:
        """Find who serves exactly this model, if anybody does."""
        return self._by_model.get(model)

    def models(self) -> list[Deployment]:
        """List all deployments by name."""
        return [self._by_model[name] for name in sorted(self._by_model)]

    async def aclose(self) -> None:
        """Close the connections of every upstream."""
        for pool in {each.pool for each in self._by_model.values()}:
            await pool.aclose()


def read_upstreams(content: bytes) -> UpstreamsFile:
    """Read the upstreams file.

    Raises `UpstreamsError` naming the place that is wrong.
    """
    try:
        file = msgspec.json.decode(content, type=UpstreamsFile)
    except msgspec.DecodeError as error:
        raise UpstreamsError(f"the upstreams file is not valid: {error}") from error
    names = [model.name for upstream in file.upstreams for model in upstream.models]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UpstreamsError(f"more than one upstream serves {', '.join(doubled)}")
    if len(file.upstreams) > UPSTREAMS_MAX or len(names) > MODELS_MAX:
        raise UpstreamsError(f"at most {UPSTREAMS_MAX} upstreams and {MODELS_MAX} models")
    return file


def make_catalogue(
    file: UpstreamsFile,
    sheet: PriceSheet,
    make_pool: Callable[[UpstreamEntry], UpstreamPool],
    environment: Mapping[str, str] = os.environ,
) -> Catalogue:
    """Connect the file's models to their prices and connection pools.

    Raises `UpstreamsError` when a credential is not in the environment.
    """
    deployments = []
    for upstream in file.upstreams:
        pool = make_pool(upstream)
        authorization = _authorization(upstream, environment)
        deployments += [
            _deployment(upstream, model, pool, authorization, sheet) for model in upstream.models
        ]
    return Catalogue(deployments, sheet)


def _deployment(
    upstream: UpstreamEntry,
    model: ModelEntry,
    pool: UpstreamPool,
    authorization: bytes | None,
    sheet: PriceSheet,
) -> Deployment:
    upstream_model = model.upstream_model or model.name
    return Deployment(
        model=model.name,
        upstream_model=upstream_model,
        provider=upstream.provider,
        pool=pool,
        authorization=authorization,
        price=sheet.find(upstream.provider, upstream_model),
        vocabulary=model.vocabulary or vocabulary_of(upstream_model),
        output_tokens_max=model.output_tokens_max,
        all_tokens_visible=model.all_tokens_visible,
        on_disconnect=model.on_disconnect,
        abort_tail_tokens=model.abort_tail_tokens,
        tier=model.tier,
        can_stream=model.can_stream,
        reasoning_tokens_per_s=model.reasoning_tokens_per_s,
        output_cap_field=model.output_cap_field,
    )


def _authorization(upstream: UpstreamEntry, environment: Mapping[str, str]) -> bytes | None:
    if upstream.key is None:
        return None
    scheme, _, name = upstream.key.partition(":")
    if scheme != "env" or not name:
        raise UpstreamsError(f"upstream {upstream.name}: key must be written as env:NAME")
    secret = environment.get(name)
    if not secret:
        raise UpstreamsError(f"upstream {upstream.name}: the variable {name} is not set")
    return b"Bearer " + secret.encode()
