"""Addresses: one spelling for each, so that equality is identity; what is none is refused with a reason."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.address import (
    Address,
    AddressError,
    HostName,
    ip_address,
    parse_address,
    parse_target,
    sockaddr,
    unix_address,
)

PORTS = st.integers(0, 65535)
LABELS = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", fullmatch=True)


@given(st.ip_addresses(), PORTS)
def test_an_address_reads_back_from_its_text(ip: IPv4Address | IPv6Address, port: int) -> None:
    address = ip_address(str(ip), port)
    assert parse_target(str(address)) == parse_address(str(address)) == address
    assert hash(parse_target(str(address))) == hash(address)


@given(st.lists(LABELS, min_size=1, max_size=4).filter(lambda each: not each[-1].isdigit()), PORTS)
def test_a_name_reads_back_from_its_text_whatever_its_case_and_final_dot(
    labels: list[str], port: int
) -> None:
    name = ".".join(labels)
    found = parse_target(f"{name}.:{port}")
    assert found == HostName(name.lower(), port) == parse_target(str(found))


@given(st.text(max_size=120))
def test_any_text_is_a_target_or_a_reason(text: str) -> None:
    reason = ""
    try:
        found = parse_target(text)
    except AddressError as error:
        reason = str(error)
    assert reason or parse_target(str(found)) == found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("[::ffff:10.0.0.1]:80", Address("10.0.0.1", 80, "inet")),
        ("[::FFFF:a00:1]:80", Address("10.0.0.1", 80, "inet")),
        ("[2001:DB8:0::1]:80", Address("2001:db8::1", 80, "inet6")),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80, "inet6")),
        ("unix:/run/x.sock", Address("/run/x.sock", 0, "unix")),
        ("unix:/run//x.sock", Address("/run/x.sock", 0, "unix")),
        ("unix:/run/.//./x.sock", Address("/run/x.sock", 0, "unix")),
        ("unix:/run/../x.sock", Address("/run/../x.sock", 0, "unix")),
        ("unix:/run/.x.sock", Address("/run/.x.sock", 0, "unix")),
        ("unix:@a//b", Address("@a//b", 0, "unix")),
    ],
)
def test_spellings_of_one_address_are_one_address(text: str, address: Address) -> None:
    """J2, and what J5 stands on."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:65536",
        "10.0.0.1:+80",
        "10.0.0.1:\u0668\u0660",
        "10.0.0.01:80",
        "127.1:80",
        "::1:80",
        "[10.0.0.1]:80",
        "[::1]",
        "a:b:80",
        "-a:80",
        "a-.b:80",
        "a b:80",
        f"{'a' * 64}:80",
        f"{'a.' * 127}a:80",
        "http://a:80",
        "[fe80::1%]:80",
        "[fe80::1%a b]:80",
        "unix:",
        "unix:@",
        "unix:/a\0b",
        f"unix:/{'a' * 107}",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_target(text)


def test_a_name_is_no_address() -> None:
    with pytest.raises(AddressError, match="is a name"):
        parse_address("localhost:80")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (ip_address("10.0.0.1", 80), ("10.0.0.1", 80)),
        (ip_address("fe80::1%eth0", 80), ("fe80::1%eth0", 80)),
        (unix_address("/run/x"), "/run/x"),
        (unix_address("@x"), b"\0x"),
    ],
)
def test_what_the_socket_layer_takes(address: Address, name: object) -> None:
    assert sockaddr(address) == name


@pytest.mark.parametrize(
    ("address", "wildcard"),
    [
        (ip_address("0.0.0.0", 80), True),
        (ip_address("::", 80), True),
        (ip_address("::ffff:0.0.0.0", 80), True),
        (ip_address("127.0.0.1", 80), False),
        (unix_address("/run/x"), False),
    ],
)
def test_wildcards(address: Address, wildcard: bool) -> None:
    assert address.is_wildcard == wildcard
