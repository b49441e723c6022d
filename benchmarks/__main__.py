"""`make bench`: measure this machine and print each figure beside its floor and its target."""

from __future__ import annotations

from benchmarks.admission import measure


def main() -> None:
    """Run every benchmark there is so far; the others follow with their issues."""
    print(measure())


if __name__ == "__main__":
    main()
