"""Buckets of time: every instant in exactly one, daylight saving and odd zones included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from controlplane.clock import instant, nanoseconds
from controlplane.errors import InvalidInput
from controlplane.usage.report.buckets import BUCKETS_MAX, RANGE_DAYS_MAX, Bucket, calendar

HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS


def edges(starts: str, ends: str, zone: str, bucket: Bucket) -> list[str]:
    """Tell where buckets begin, and where the last ends, in local time."""
    made = calendar(at(starts), at(ends), ZoneInfo(zone), bucket)
    local = [instant(each).astimezone(ZoneInfo(zone)) for each in made.edges_ns]
    return [f"{each:%m-%d %H:%M%z}" for each in local]


def at(text: str) -> int:
    return nanoseconds(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("starts", "ends", "zone", "bucket", "want"),
    [
        ("2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00", "Europe/Berlin", Bucket.DAY,
         ["03-29 00:00+0100", "03-30 00:00+0200"]),
        ("2026-03-29T01:30+01:00", "2026-03-29T04:00+02:00", "Europe/Berlin", Bucket.HOUR,
         ["03-29 01:00+0100", "03-29 03:00+0200", "03-29 04:00+0200"]),
        ("2026-10-25T01:30+02:00", "2026-10-25T03:30+01:00", "Europe/Berlin", Bucket.HOUR,
         ["10-25 01:00+0200", "10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100",
          "10-25 04:00+0100"]),
        # Clocks go back by half an hour at 2:00, and forward by half an hour at 2:00.
        ("2026-04-05T01:00+11:00", "2026-04-05T03:00+10:30", "Australia/Lord_Howe", Bucket.HOUR,
         ["04-05 01:00+1100", "04-05 01:30+1030", "04-05 02:00+1030", "04-05 03:00+1030"]),
        ("2026-10-04T01:00+10:30", "2026-10-04T04:00+11:00", "Australia/Lord_Howe", Bucket.HOUR,
         ["10-04 01:00+1030", "10-04 02:30+1100", "10-04 03:00+1100", "10-04 04:00+1100"]),
        ("2026-01-01T00:00Z", "2026-01-01T02:00Z", "Asia/Kathmandu", Bucket.HOUR,
         ["01-01 05:00+0545", "01-01 06:00+0545", "01-01 07:00+0545", "01-01 08:00+0545"]),
        # Midnight is skipped: the day begins at one o'clock.
        ("2018-11-03T12:00-03:00", "2018-11-04T12:00-02:00", "America/Sao_Paulo", Bucket.DAY,
         ["11-03 00:00-0300", "11-04 01:00-0200", "11-05 00:00-0200"]),
        # At midnight it becomes eleven again: the day has 25 hours, and is one bucket.
        ("2018-02-17T12:00-02:00", "2018-02-18T12:00-03:00", "America/Sao_Paulo", Bucket.DAY,
         ["02-17 00:00-0200", "02-18 00:00-0300", "02-19 00:00-0300"]),
        # One minute after midnight it becomes 23:01 of the day before.
        ("2010-11-06T12:00-02:30", "2010-11-07T12:00-03:30", "America/St_Johns", Bucket.DAY,
         ["11-06 00:00-0230", "11-07 00:00-0230", "11-08 00:00-0330"]),
        # The 30th of December 2011 was left out.
        ("2011-12-29T12:00-10:00", "2011-12-31T12:00+14:00", "Pacific/Apia", Bucket.DAY,
         ["12-29 00:00-1000", "12-31 00:00+1400", "01-01 00:00+1400"]),
        ("2026-03-29T12:00Z", "2026-03-31T00:00Z", "UTC", Bucket.WEEK,
         ["03-23 00:00+0000", "03-30 00:00+0000", "04-06 00:00+0000"]),
        ("2026-02-10T00:00Z", "2026-04-01T00:00+02:00", "Europe/Berlin", Bucket.MONTH,
         ["02-01 00:00+0100", "03-01 00:00+0100", "04-01 00:00+0200"]),
        ("2026-01-01T00:00:59Z", "2026-01-01T00:01:01Z", "UTC", Bucket.MINUTE,
         ["01-01 00:00+0000", "01-01 00:01+0000", "01-01 00:02+0000"]),
    ],
)  # fmt: skip
def test_buckets_follow_the_local_calendar(starts, ends, zone, bucket, want) -> None:
    assert edges(starts, ends, zone, bucket) == want


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"])
@pytest.mark.parametrize("bucket", list(Bucket))
def test_an_instant_finds_the_bucket_that_holds_it(zone, bucket) -> None:
    # Clocks are changed in it.
    starts = at("2026-10-25T00:00Z" if bucket is Bucket.MINUTE else "2026-09-20T00:00Z")
    length = DAY_NS if bucket is Bucket.MINUTE else 60 * DAY_NS
    made = calendar(starts, starts + length, ZoneInfo(zone), bucket)
    for moment in (*range(starts, starts + length, length // 997), *made.edges_ns[1:-1]):
        stretch = next(each for each in made.stretches if moment < each.ends_ns)
        found = made.slots[(moment - stretch.zero_ns) // made.slot_ns]
        assert made.edges_ns[found] <= moment < made.edges_ns[found + 1]


def test_an_empty_range_has_no_buckets() -> None:
    assert calendar(DAY_NS, DAY_NS, ZoneInfo("UTC"), Bucket.DAY).buckets == 0


@pytest.mark.parametrize(
    ("bucket", "length_ns"),
    [
        (Bucket.MINUTE, HOUR_NS // 60 * BUCKETS_MAX),
        (Bucket.HOUR, HOUR_NS * BUCKETS_MAX),
        (Bucket.DAY, DAY_NS * BUCKETS_MAX),
        (Bucket.MONTH, RANGE_DAYS_MAX * DAY_NS),
    ],
)
def test_a_report_has_so_many_buckets_and_no_more(bucket, length_ns) -> None:
    starts, zone = at("2026-01-05T00:00Z"), ZoneInfo("UTC")
    assert calendar(starts, starts + length_ns, zone, bucket).buckets <= BUCKETS_MAX
    with pytest.raises(InvalidInput):
        calendar(starts, starts + length_ns + 1, zone, bucket)


def test_a_range_is_refused_before_it_is_laid_out() -> None:
    with pytest.raises(InvalidInput) as refused:
        calendar(0, 3_000 * DAY_NS, ZoneInfo("UTC"), Bucket.MINUTE)
    assert refused.value.field == ("bucket",)
    assert "longer bucket" in refused.value.message


def test_every_transition_of_a_zone_is_found() -> None:
    zone, start = ZoneInfo("Africa/Casablanca"), datetime(2020, 1, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=number) for number in range(24 * 366 * 5)]
    offsets = [each.astimezone(zone).utcoffset() for each in hours]
    changes = [hours[n + 1] for n, (one, next_) in enumerate(pairwise(offsets)) if one != next_]
    made = calendar(nanoseconds(hours[0]), nanoseconds(hours[-1]), zone, Bucket.WEEK)
    assert [instant(each.ends_ns) for each in made.stretches[:-1]] == changes
    assert len(changes) == 10
