"""What the handlers of both services read from a request."""

from typing import Any

import pytest
from litestar import Request

from common.requests import read_client_network


@pytest.mark.parametrize(
    ("client", "network"),
    [
        (("192.0.2.7", 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::9", 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:3::9", 0), "2001:db8:1:3::/64"),
        # A proxy that listens on both families writes the address of an IPv4 client like this.
        (("::ffff:192.0.2.7", 0), "192.0.2.7"),
        (("unix:", 0), "unix:"),
        (None, ""),
    ],
)
def test_a_client_is_its_ipv4_address_or_the_network_of_its_ipv6_address(
    client: tuple[str, int] | None, network: str
) -> None:
    scope: Any = {"type": "http", "client": client, "headers": [], "state": {}}
    assert read_client_network(Request(scope)) == network
