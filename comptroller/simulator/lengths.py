"""How long answers are: fixed, uniform or log-normal, drawn with the request's own seed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

LENGTH_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same number of tokens."""

    tokens: int

    def draw(self, random: Random) -> int:  # noqa: ARG002 - the others need it
        """Give the number."""
        return self.tokens


@dataclass(frozen=True, slots=True)
class Uniform:
    """Any number of tokens between two, both included."""

    least: int
    most: int

    def draw(self, random: Random) -> int:
        """Draw one length."""
        return random.randint(self.least, self.most)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Log-normal around a median, the shape that real answers have; at least 1 token."""

    median: int
    sigma: float

    def draw(self, random: Random) -> int:
        """Draw one length."""
        drawn = random.lognormvariate(math.log(self.median), self.sigma)
        return max(1, min(LENGTH_MAX, round(drawn)))


OutputLength = Fixed | Uniform | LogNormal


def parse_length(text: str) -> OutputLength:
    """Read `300`, `fixed:300`, `uniform:100:500` or `lognormal:300:1.0`.

    Raises ValueError, with a sentence that shows the forms.
    """
    kind, _, rest = text.partition(":") if ":" in text else ("fixed", ":", text)
    try:
        return _LENGTHS[kind](*rest.split(":"))
    except (KeyError, TypeError, ValueError):
        message = (
            f"Output length {text!r} is none of 300, uniform:100:500, lognormal:300:1.0 "
            f"with tokens from 0 to {LENGTH_MAX}."
        )
        raise ValueError(message) from None


def _fixed(tokens: str) -> Fixed:
    return Fixed(_tokens(tokens))


def _uniform(least: str, most: str) -> Uniform:
    length = Uniform(_tokens(least), _tokens(most))
    if length.least > length.most:
        raise ValueError(most)
    return length


def _log_normal(median: str, sigma: str = "1") -> LogNormal:
    length = LogNormal(_tokens(median), float(sigma))
    if length.median < 1 or not 0 <= length.sigma <= 5:  # noqa: PLR2004 - e⁵ is 148-fold
        raise ValueError(sigma)
    return length


def _tokens(text: str) -> int:
    tokens = int(text)
    if not 0 <= tokens <= LENGTH_MAX:
        raise ValueError(text)
    return tokens


_LENGTHS: dict[str, Callable[..., OutputLength]] = {
    "fixed": _fixed,
    "uniform": _uniform,
    "lognormal": _log_normal,
}
