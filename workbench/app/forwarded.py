"""What a request says about where it comes from, and how much of that is believed."""

from __future__ import annotations

import re

from workbench.app.access import Access
from workbench.app.asgi import Headers, Scope, all_of

UNTRUSTED = (b"x-forwarded-", b"x-gradio-", b"x-real-ip", b"forwarded", b"x-original-")
"""Headers by which a client could say that it, or this app, is somewhere else."""


def client_of(scope: Scope, proxies: int) -> str:
    """The client's address: the peer's, or with proxies of ours the one that the outermost of them saw.

    Each of our proxies adds to the end, in the same line or one of its own; what stands before may be invented.
    """
    if proxies:
        lines = b",".join(all_of(scope["headers"], b"x-forwarded-for")).decode("latin-1")
        chain = [part.strip() for part in lines.split(",")]
        if len(chain) >= proxies and chain[-proxies]:
            return chain[-proxies]
    peer = scope.get("client")
    return str(peer[0]) if peer else "unknown"


def forwarded_host(headers: Headers) -> str | None:
    """The Host that the client asked our nearest proxy for, as that proxy says."""
    found = b",".join(all_of(headers, b"x-forwarded-host")).decode("latin-1").split(",")[-1].strip()
    return found or None


def host_name(host: str) -> str:
    """A Host header without its port, in lower case."""
    return re.sub(r":\d*\Z", "", host.strip().lower())


def same_origin(origin: str, host: str) -> bool:
    """Whether an Origin header is that of the page under this Host, port included."""
    match = re.fullmatch(r"(https?)://([^/]+)", origin.strip().lower())
    if match is None:
        return False
    default = ":443" if match[1] == "https" else ":80"
    return match[2].removesuffix(default) == host.strip().lower().removesuffix(default)


def trusted(headers: Headers, access: Access, host: str) -> list[tuple[bytes, bytes]]:
    """The headers without what a client could write about proxies; of ours, whether the client speaks HTTPS is kept.

    Args:
        host: the name that the client called us by; it takes the place of the Host header.
    """
    kept = [(name, value) for name, value in headers if not name.lower().startswith(UNTRUSTED)]
    protocols = b",".join(all_of(headers, b"x-forwarded-proto")).decode("latin-1").split(",")
    if access.proxies and protocols[-1].strip() == "https":
        kept.append((b"x-forwarded-proto", b"https"))
    if access.forwarded_host:
        kept = [(name, value) for name, value in kept if name.lower() != b"host"]
        kept.append((b"host", host.encode("latin-1")))
    return kept
