"""Which addresses may be contacted."""

import asyncio

import pytest

from proxy.upstream.addresses import ADDRESSES_MAX, AddressBook, AddressPolicy
from proxy.upstream.errors import UpstreamAddressRefused, UpstreamUnreachable

PRIVATE = [
    "127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
    "198.18.0.1", "192.88.99.1", "::1", "::", "fe80::1", "fe80::1%1", "fc00::1", "fd00::1",
    "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "64:ff9b:1::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address):
    with pytest.raises(UpstreamAddressRefused) as refused:
        AddressPolicy(()).check("h", address)
    assert refused.value.sent is False
    assert (refused.value.code, refused.value.status) == ("upstream_unreachable", 502)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address):
    assert AddressPolicy(()).check("h", address) == address


def test_a_listed_network_opens_its_addresses_and_no_others():
    policy = AddressPolicy(("10.1.0.0/16", "::1"))
    assert policy.check("h", "10.1.255.255") == "10.1.255.255"
    assert policy.check("h", "::ffff:10.1.0.1")
    assert policy.check("h", "::1")
    for address in ("10.2.0.0", "127.0.0.1"):
        with pytest.raises(UpstreamAddressRefused):
            policy.check("h", address)


def test_a_listed_host_opens_private_ranges_for_itself_alone():
    policy = AddressPolicy(("Model.Internal.",))
    assert policy.check("model.internal", "10.0.0.1")
    with pytest.raises(UpstreamAddressRefused):
        policy.check("other.internal", "10.0.0.1")


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1"])
def test_a_listed_host_never_opens_link_local_multicast_or_unspecified(address):
    with pytest.raises(UpstreamAddressRefused):
        AddressPolicy(("h",)).check("h", address)


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "10.0.0.0/33", "", " ", "::zz", "a/b"])
def test_an_entry_that_is_neither_name_nor_network_is_refused(entry):
    with pytest.raises(ValueError, match="neither"):
        AddressPolicy((entry,))


def book(resolve, ttl_s=60.0, allowed=()):
    return AddressBook("h", 80, policy=AddressPolicy(allowed), resolve=resolve, ttl_s=ttl_s)


async def test_one_private_address_among_public_ones_refuses_the_name():
    async def resolve(host, port):
        return ["8.8.8.8", "10.0.0.1"]

    with pytest.raises(UpstreamAddressRefused):
        await book(resolve).addresses()


async def test_all_addresses_are_checked_even_beyond_those_that_are_tried():
    async def resolve(host, port):
        return [f"8.8.8.{n}" for n in range(ADDRESSES_MAX)] + ["10.0.0.1"]

    with pytest.raises(UpstreamAddressRefused):
        await book(resolve).addresses()


async def test_a_name_without_address_is_unreachable():
    async def resolve(host, port):
        return []

    with pytest.raises(UpstreamUnreachable):
        await book(resolve).addresses()


async def test_one_look_up_serves_all_who_ask_and_survives_the_first_being_cancelled():
    asked = []
    may_answer = asyncio.Event()

    async def resolve(host, port):
        asked.append((host, port))
        await may_answer.wait()
        return ["8.8.8.8", "8.8.8.8"]

    addresses = book(resolve)
    first, second = (asyncio.create_task(addresses.addresses()) for _ in range(2))
    await asyncio.wait((first, second), timeout=0)
    first.cancel()
    await asyncio.wait((first,))
    may_answer.set()
    assert await second == ["8.8.8.8"]
    assert await addresses.addresses() == ["8.8.8.8"]
    assert asked == [("h", 80)]


async def test_a_failed_look_up_is_not_remembered_and_an_old_one_is_repeated():
    answers = [OSError("no such name"), ["8.8.8.8"], ["8.8.4.4"]]

    async def resolve(host, port):
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    addresses = book(resolve, ttl_s=1e-9)
    with pytest.raises(OSError, match="no such name"):
        await addresses.addresses()
    assert await addresses.addresses() == ["8.8.8.8"]
    await asyncio.wait((asyncio.create_task(asyncio.sleep(0.002)),))
    assert await addresses.addresses() == ["8.8.4.4"]


async def test_closing_ends_the_look_up_for_those_who_wait():
    async def resolve(host, port):
        await asyncio.Event().wait()

    addresses = book(resolve)
    waiting = asyncio.create_task(addresses.addresses())
    await asyncio.wait((waiting,), timeout=0)
    addresses.close()
    with pytest.raises(UpstreamUnreachable):
        await waiting
