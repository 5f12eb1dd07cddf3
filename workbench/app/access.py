"""Who may reach the app: the address it listens on, the names it answers to, and the password."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from spark_kernel.errors import InputError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
USER = "workbench"
"""The user name that belongs to the password."""
SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True)
class Access:
    """Where the app listens and for whom.

    `address`: to bind to. `hosts`: names a request's Host header may have, without port. `password`: None where none is
    needed. `public`: anybody may look, within tighter limits. `proxies`: how many reverse proxies of ours stand in
    front; the client is then what the outermost of them wrote into X-Forwarded-For.
    """

    address: str
    hosts: tuple[str, ...]
    password: str | None
    public: bool
    proxies: int = 0
    forwarded_host: bool = False


def decide_access(
    address: str = "127.0.0.1",
    *,
    hosts: Sequence[str] = (),
    password: str | None = None,
    public: bool = False,
    proxies: int = 0,
    forwarded_host: bool = False,
) -> Access:
    """The access that was asked for, if it is safe.

    Raises:
        InputError: an address that others can reach without password or --public, or without named hosts; a password
            that is too short; something that is no address or host name.
    """
    named = tuple(host.strip().lower() for host in hosts if host.strip())
    for host in named:
        if any(sign in host for sign in "/:*@ ") and not host.startswith("["):
            raise InputError(f'--hosts "{host}" is refused: give host names without scheme, port or "*".')
    if password is not None and len(password) < SHORTEST_PASSWORD:
        raise InputError(f"The password is refused: at least {SHORTEST_PASSWORD} characters.")
    if proxies < 0:
        raise InputError(f"--proxies {proxies} is refused: at least 0.")
    if forwarded_host and not proxies:
        raise InputError("--forwarded-host is refused without a proxy that writes that header: say --proxies 1, too.")
    if is_loopback(address):
        names = dict.fromkeys((*LOOPBACK_NAMES, *named))
        return Access(address, tuple(names), password, public, proxies, forwarded_host)
    if password is None and not public:
        raise InputError(
            f"--address {address} lets others in: set a password in the environment variable WORKBENCH_PASSWORD, or "
            "say --public, or stay on 127.0.0.1."
        )
    if not named and is_everywhere(address):
        raise InputError(
            f"--address {address} listens everywhere: name the hosts that people will type, --hosts NAME ..., "
            "so that no other site's name can be pointed here."
        )
    # The health check of the server itself comes over loopback.
    return Access(
        address, tuple(dict.fromkeys((*named, bracketed(address), *LOOPBACK_NAMES))), password, public, proxies,
        forwarded_host,
    )  # fmt: skip


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address.

    Raises:
        InputError: it is neither an IP address nor "localhost".
    """
    return address == "localhost" or _ip(address).is_loopback


def is_everywhere(address: str) -> bool:
    """Whether the address stands for every interface."""
    return _ip(address).is_unspecified


def bracketed(address: str) -> str:
    """An address as a Host header has it: IPv6 in brackets."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        raise InputError(f'--address "{address}" is refused: an IP address of this machine, or localhost.') from None
