"""How often somebody may come: a bucket for each door and each guest, in this process's memory.

A bucket holds `most` turns; each request takes one, and one comes back every `seconds`. So a person in a hurry notices nothing,
and a script that runs wild waits. A guest is a client address, for IPv6 the network of a household (/64); where it matters more, a
token or a joining code (as hashes), or a town. Beyond `GUESTS_MAX` those that were not touched for longest are dropped, so that a
flood of made-up guests cannot fill the memory; a dropped bucket is a full one.

A site has one web process (`serving.py`), so one memory is enough; a restart forgives everything. What must outlive a restart is
counted in the database (`login.LINKS_MAX`). The numbers are generous on purpose: a whole circle may log in over one Wi-Fi, and no
guest of the demo or of the tests comes near them. `TUINKOEPEL_…_LIMITS` multiplies them all; 0 lets everything in.

What this does not stop is a flood from many addresses: that is for the proxy in front (`deploy/security.md`).
"""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

GUESTS_MAX = 20_000
"""Buckets that are remembered: some 5 MB."""


@dataclass(frozen=True)
class Door:
    """`most` turns at once, and a new one every `seconds`."""

    name: str
    most: int
    seconds: float
    meaning: str


LOGIN_MAILS = Door("login_mails", 60, 15, "asking for a login link, by address: 60 at once, then 4 a minute")
LOGIN_LINKS = Door("login_links", 300, 3, "opening a login link, by address: 300 at once, then 20 a minute")
JOINING = Door("joining", 30, 20, "joining with a code, by address: 30 at once, then 3 a minute")
JOINING_CODE = Door("joining_code", 10, 60, "joining with one code: 10 at once, then 1 a minute")
CALLS = Door("calls", 3000, 0.02, "heads and feed, by address, before any signature is looked at: 3,000 at once, then 50 a second")
TOWN_CALLS = Door("town_calls", 1200, 0.05, "heads and feed of one town: 1,200 at once, then 20 a second")
API = Door("api", 6000, 0.01, "the API, by address: 6,000 at once, then 100 a second")
API_TOKEN = Door("api_token", 6000, 0.01, "the API, by token: 6,000 at once, then 100 a second")
FORMS = Door("forms", 1200, 0.05, "forms that write, by address: 1,200 at once, then 20 a second")
DOORS = (LOGIN_MAILS, LOGIN_LINKS, JOINING, JOINING_CODE, CALLS, TOWN_CALLS, API, API_TOKEN, FORMS)


class Limits:
    """The buckets of a site. `times` multiplies every number; 0 lets everything in."""

    def __init__(self, times: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._times, self._clock = times, clock
        self._full_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        """For each bucket the moment at which it will be full again: all that has to be known of it."""
        self._guard = threading.Lock()

    def wait(self, door: Door, guest: str) -> float:
        """Take a turn: 0, or the seconds to wait for the next one, and then none was taken."""
        if not self._times:
            return 0.0
        each = door.seconds / self._times
        now = self._clock()
        with self._guard:
            full_at = max(now, self._full_at.pop((door.name, guest), now))
            wait = max(0.0, full_at + each - now - door.seconds * door.most)
            self._full_at[door.name, guest] = full_at if wait else full_at + each
            if len(self._full_at) > GUESTS_MAX:
                self._full_at.popitem(last=False)
        return wait


def client_of(address: str | None) -> str:
    """Whom a client address counts for: itself, or for IPv6 its network, because a household has all of it."""
    try:
        at = ipaddress.ip_address(address or "")
    except ValueError:  # a Unix socket has none
        return address or ""
    if isinstance(at, ipaddress.IPv6Address):
        if at.ipv4_mapped:
            return str(at.ipv4_mapped)
        return str(ipaddress.ip_network((int(at) >> 64 << 64, 64)))
    return str(at)
