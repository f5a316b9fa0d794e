"""Which names mean this machine, and nothing that somebody else could make point to it."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether this is `localhost` or an address of the loopback range, bracketed or not."""
    name = host.lower().removesuffix(".")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
