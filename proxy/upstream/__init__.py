"""Pooled HTTP/1.1 connections to model providers, whose answers are not trusted."""

from proxy.upstream.answer import UpstreamAnswer
from proxy.upstream.errors import (
    UpstreamAddressRefused,
    UpstreamBadResponse,
    UpstreamConnectTimeout,
    UpstreamError,
    UpstreamPoolExhausted,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnreachable,
)
from proxy.upstream.pool import UpstreamPool, system_ssl_context
from proxy.upstream.settings import UpstreamSettings

__all__ = [
    "UpstreamAddressRefused",
    "UpstreamAnswer",
    "UpstreamBadResponse",
    "UpstreamConnectTimeout",
    "UpstreamError",
    "UpstreamPool",
    "UpstreamPoolExhausted",
    "UpstreamReset",
    "UpstreamSettings",
    "UpstreamTimeout",
    "UpstreamTooLarge",
    "UpstreamUnreachable",
    "system_ssl_context",
]
