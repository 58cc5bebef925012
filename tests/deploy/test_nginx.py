"""The way in as an operator has it: `deploy/nginx.conf` in a real nginx, with TLS, before a real node and a real hub.

The hub's site is made as the file says, by copying the node's. Every part is a process of its own; the node calls the hub through
nginx too.
"""

import re
import socket
import ssl
from http.cookies import SimpleCookie

import pytest
import urllib3

from shared.limits import JOINING, client_of
from tests.conftest import ROOT
from tests.processes import FACILITATOR, World
from tests.services import Nginx, certificate, clear, free_port, fresh_folder

NODE, HUB = "almere.example.org", "localhost"
LIMIT = 2 * 1024 * 1024


class Guest:
    """Somebody's browser: it keeps cookies, and believes the test's certificate only."""

    def __init__(self, way: "WayIn", name: str = NODE) -> None:
        self.name, self._cookies = name, {}
        self._pool = urllib3.HTTPSConnectionPool(
            "127.0.0.1", way.tls, server_hostname=name, assert_hostname=name, ca_certs=str(way.certificate), timeout=30
        )

    def call(self, method: str, path: str, body: object = None, fields: dict | None = None, **headers: str):
        """The answer; redirects are not followed."""
        said = {"Host": self.name, "Accept-Encoding": "gzip"} | {key.replace("_", "-"): value for key, value in headers.items()}
        if self._cookies:
            said["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        more = {"fields": fields} if fields else {"body": body}
        answer = self._pool.request(method, path, headers=said, redirect=False, retries=False, **more)
        for line in answer.headers.getlist("Set-Cookie"):
            self._cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        return answer

    def send(self, path: str, **fields: object):
        """Send the form on this page."""
        page = self.call("GET", path).data.decode()
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)[1]
        return self.call("POST", path, fields={"csrf_token": token} | fields)

    def enter(self, link: str):
        """Log in by a link."""
        answer = self.send(link.partition(self.name)[2])
        assert answer.status == 302
        return answer


class WayIn:
    """nginx, and behind it a hub and a node that joined through it."""

    def __init__(self) -> None:
        self.folder = fresh_folder()
        self.certificate = certificate(self.folder, f"DNS:{NODE},DNS:{HUB}")
        self.plain, self.tls = free_port(), free_port()
        (self.folder / ".well-known" / "acme-challenge").mkdir(parents=True)
        (self.folder / ".well-known" / "acme-challenge" / "proof").write_text("it is us")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SSL_CERT_FILE", str(self.certificate))  # an authority that everybody here knows
            self.world = World(
                (),
                hub_settings={"URL": f"https://{HUB}:{self.tls}", "PROXIES": "1"},
                town_settings={"URL": f"https://{NODE}", "PROXIES": "1"},
            )
            self.hub, self.node = self.world.hub, self.world.new_town("almere")
        self.nginx = Nginx(self._lines(), self.folder, (self.plain, self.tls))

    def _lines(self) -> str:
        conf = (ROOT / "deploy" / "nginx.conf").read_text()
        head, site = conf.split("# ---- A site ----")
        site = re.sub(r"^ *listen \[::\].*\n", "", site, flags=re.MULTILINE)  # not every machine that tests has IPv6
        site = site.replace("listen 80;", f"listen 127.0.0.1:{self.plain};").replace("443 ssl", f"127.0.0.1:{self.tls} ssl")
        site = re.sub(r"/etc/letsencrypt/live/[^/]+/fullchain.pem", str(self.certificate), site)
        site = re.sub(r"/etc/letsencrypt/live/[^/]+/privkey.pem", str(self.folder / "key.pem"), site)
        site = site.replace("/var/www/html", str(self.folder)).replace("/var/log/nginx", str(self.folder))
        node = site.replace("127.0.0.1:8001", f"127.0.0.1:{self.node.port}")
        hub = site.replace(NODE, HUB).replace("127.0.0.1:8001", f"127.0.0.1:{self.hub.port}")
        return head + node + hub

    def start(self) -> None:
        for kind in ("web", "worker"):
            self.hub.start(kind)
        for kind in ("web", "worker"):
            self.hub.wait_until_ready(kind)
        for words in (
            ("join", "--hub", f"https://{HUB}:{self.tls}", self.hub.code_for("almere")),
            ("person", "add", "Fenna Facilitator", FACILITATOR, "--role", "facilitator"),
        ):
            done = self.node.command(*words)
            assert done.returncode == 0, done.stderr
        for kind in ("web", "worker"):
            self.node.start(kind)
        for kind in ("web", "worker"):
            self.node.wait_until_ready(kind)

    def facilitator(self) -> Guest:
        """Logged in by the link of the console."""
        guest = Guest(self)
        guest.enter(self.node.command("login-link", FACILITATOR).stdout.strip())
        return guest

    def raw(self, *lines: str, name: str = NODE) -> bytes:
        """What is answered to these very lines."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        with (
            socket.create_connection(("127.0.0.1", self.tls), timeout=30) as line,
            context.wrap_socket(line, server_hostname=name) as secure,
        ):
            secure.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
            return b"".join(iter(lambda: secure.recv(65536), b""))

    def end(self) -> None:
        self.nginx.end()
        self.world.end()
        clear(self.folder)


@pytest.fixture(scope="module")
def way():
    made = WayIn()
    try:
        made.start()
        yield made
    finally:
        made.end()


def test_nginx_has_nothing_to_say_about_the_file(way):
    assert "warn" not in way.nginx.checked.stderr
    assert "test is successful" in way.nginx.checked.stderr


def test_a_page_comes_with_what_protects_it(way):
    answer = Guest(way).call("GET", "/login")
    assert answer.status == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert cookie.startswith("__Host-tuinkoepel_form=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Server"] == "nginx"


def test_files_are_kept_and_not_fetched_twice(way):
    page = Guest(way).call("GET", "/").data.decode()
    for address in (re.search(rf'="([^"]+\.{kind}[^"]*)"', page)[1] for kind in ("css", "js")):
        first = Guest(way).call("GET", address)
        assert first.status == 200, address
        assert "31536000" in first.headers["Cache-Control"]
        again = Guest(way).call("GET", address, If_None_Match=first.headers["ETag"])
        assert (again.status, again.data) == (304, b""), address


def test_what_changed_not_is_not_sent_again(way):
    first = Guest(way, HUB).call("GET", "/numbers.json")
    again = Guest(way, HUB).call("GET", "/numbers.json", If_None_Match=first.headers["ETag"])
    assert (first.status, again.status, again.data) == (200, 304, b"")


def test_who_logs_in_is_known_by_a_cookie_for_this_host_and_tls_only(way):
    guest = Guest(way)
    link = way.node.command("login-link", FACILITATOR).stdout.strip()
    assert link.startswith(f"https://{NODE}/login/link/")
    entered = guest.enter(link)
    cookie = next(line for line in entered.headers.getlist("Set-Cookie") if line.startswith("__Host-tuinkoepel="))
    assert {"Secure", "HttpOnly", "Path=/"} <= set(cookie.split("; "))
    assert entered.headers["Location"] == "/"
    assert "Fenna Facilitator" in guest.call("GET", "/").data.decode()
    lesson = {"title": "Door de voordeur", "body": "Het kan.", "kind": "tip", "theme": "water"}
    answer = guest.send("/lessons/new", **lesson, phase="", initiative="", meeting="")
    assert answer.status == 302, answer.data.decode()
    assert answer.headers["Location"].startswith("/lessons/")


def test_a_login_link_stands_in_no_log_file_also_when_the_site_is_away(way):
    secret = way.node.command("login-link", FACILITATOR).stdout.strip().rpartition("/")[2]
    assert Guest(way).call("GET", f"/login/link/{secret}").status == 200
    urllib3.request("GET", f"http://127.0.0.1:{way.plain}/login/link/{secret}", headers={"Host": NODE}, redirect=False)
    way.node.stop("web")
    try:
        away = Guest(way).call("GET", f"/login/link/{secret}")
        assert (away.status, away.headers["Retry-After"]) == (502, "30")
        assert "Deze site is er even niet" in away.data.decode()
        assert "away for a moment" in Guest(way).call("GET", "/").data.decode()
    finally:
        way.node.start("web")
        way.node.wait_until_ready("web")
    assert Guest(way).call("GET", f"/login/link/{secret}").status == 200, "it is a key still"
    assert secret not in way.nginx.logs()
    assert '"GET / HTTP/1.1" 502' in way.nginx.logs(), "the rest is written down"


def test_an_upload_may_be_as_large_as_the_process_allows_and_beyond_it_words_say_so(way):
    guest = way.facilitator()
    line = b"Naam;Soort;Fase\nKruidentuin;buurtmoestuin;idee\n"
    fits = guest.send("/transfer", kind="initiatives", file=("tuinen.csv", line + b"\n" * (LIMIT - 1000), "text/csv"))
    assert fits.status == 302, fits.data.decode()
    assert guest.call("GET", fits.headers["Location"]).status == 200
    for size in (LIMIT, 4 * LIMIT):
        beyond = guest.send("/transfer", kind="initiatives", file=("tuinen.csv", line + b"\n" * size, "text/csv"))
        assert beyond.status == 413
        assert "Dat is te groot: de grens is 2 MB." in beyond.data.decode()
        assert beyond.headers["Content-Type"] == "text/html; charset=utf-8"
    assert guest.call("POST", "/login", b"x" * LIMIT).status == 400, "the process says no to it, not nginx"
    assert guest.call("POST", "/login", b"x" * (LIMIT + 1)).status == 413


def test_a_guests_address_is_what_nginx_says_and_not_what_the_guest_says(way):
    said = [
        Guest(way, HUB).call(
            "POST",
            "/federation/v1/join",
            b"{}",
            X_Forwarded_For=f"198.51.100.{number}",
            Forwarded=f"for=198.51.100.{number}",
        )
        for number in range(JOINING.most + 1)
    ]
    assert {answer.status for answer in said[:-1]} <= {400, 403, 422, 429}
    assert said[-1].status == 429
    assert int(said[-1].headers["Retry-After"]) > 0
    assert said[-1].headers["Content-Type"] == "application/problem+json", "the process counted, not nginx"


def test_no_name_or_scheme_that_a_guest_makes_up_is_believed(way):
    answer = Guest(way).call("GET", "/login", X_Forwarded_Host="evil.example", X_Forwarded_Proto="http")
    assert answer.status == 200
    assert "evil.example" not in answer.data.decode()
    assert "Strict-Transport-Security" in answer.headers
    refused = way.raw("GET / HTTP/1.1", "Host: evil.example")
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert b"does not go by that name" in way.raw("GET / HTTP/1.1", "Host: evil.example", "Accept-Language: en")


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics?all", "//metrics", "/%6Detrics", "/x/../metrics", "/readyz", "/./readyz", "/readyz/"]
)
def test_how_the_site_is_doing_is_told_on_the_machine_only(way, path):
    for name in (NODE, HUB):
        answer = way.raw(f"GET {path} HTTP/1.1", f"Host: {name}", name=name)
        assert answer.split()[1] == b"404", answer
    for service in (way.node, way.hub):
        assert urllib3.request("GET", service.url + "/metrics", retries=False).status == 200
    assert Guest(way).call("GET", "/healthz").status == 200


def test_who_comes_without_tls_is_led_to_it_and_lets_encrypt_finds_its_proof(way):
    led = urllib3.request("GET", f"http://127.0.0.1:{way.plain}/lessons?q=1", headers={"Host": NODE}, redirect=False)
    assert (led.status, led.headers["Location"]) == (301, f"https://{NODE}/lessons?q=1")
    proof = f"http://127.0.0.1:{way.plain}/.well-known/acme-challenge/proof"
    assert urllib3.request("GET", proof, headers={"Host": NODE}).data == b"it is us"


def test_nginx_packs_nothing_that_the_process_left_unpacked(way):
    """A form's token beside what the reader typed: the packed length of such a page would tell the token, bit by bit (BREACH)."""
    answer = way.facilitator().call("GET", "/nowhere?x=csrf_token")
    assert answer.status == 404
    assert "Content-Encoding" not in answer.headers
    assert b"csrf_token" in answer.data


def test_a_node_and_the_hub_speak_through_it(way):
    """The real node's worker: its calls are signed with the address they go to, which must come through letter by letter."""
    way.world.settle()
    assert len(way.world.national_log("almere")) == len(way.node.log()) > 0
    logs = way.nginx.logs()
    for door in ("join", "heads", "feed"):
        assert re.search(rf'"(GET|POST) /federation/v1/{door}[^"]*" 200 ', logs), door


def test_a_whole_circle_behind_one_address_is_let_in_and_a_flood_is_not(way):
    """The last one here: it leaves few turns to who comes after."""
    once = "HEAD /healthz HTTP/1.1\r\nHost: almere.example.org\r\n\r\n"
    statuses = []
    for _ in range(2):
        said = way.raw(once * 699 + once.rstrip(), name=NODE).decode()
        statuses += re.findall(r"^HTTP/1\.1 (\d+)", said, re.MULTILINE)
    assert set(statuses[:600]) == {"200"}
    assert statuses[-1] == "429"
    assert "Retry-After: 10" in said
    assert Guest(way).call("GET", "/api/v1/lessons").status == 200, "programs have turns of their own"


@pytest.fixture
def counter():
    """The file's own counting before a site that trusts what a guest says of its address; asks and says who was let in."""
    folder, port = fresh_folder(), free_port()
    head = (ROOT / "deploy" / "nginx.conf").read_text().partition("# ---- A site ----")[0].replace("rate=50r/s", "rate=1r/m")
    (folder / "page").write_text("here")
    site = f"""server {{
        listen 127.0.0.1:{port};
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Guest;
        limit_req zone=tuinkoepel burst=1 nodelay;
        limit_req_status 429;
        location / {{ root {folder}; }}
    }}"""
    nginx = Nginx(head + site, folder, (port,))
    pool = urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=30, retries=False)
    yield lambda guest: pool.request("GET", "/page", headers={"X-Guest": guest}).status
    pool.close()
    nginx.end()


@pytest.mark.parametrize("household", ["2001:db8:a:b:{}::1", "2001:db8:a:a0a:{}:0:a:a"])
def test_a_household_is_counted_as_one_whatever_addresses_it_makes_up(counter, household):
    """Whoever has an IPv6 line has 2**64 addresses; the process counts them together too (`limits.client_of`)."""
    addresses = [household.format(part) for part in ("1", "2", "a0a")]
    assert len({client_of(address) for address in addresses}) == 1
    assert [counter(address) for address in addresses] == [200, 200, 429]


@pytest.mark.parametrize(
    "addresses",
    [
        [f"2001:db8:a:{part:x}::1" for part in range(4)],
        [f"192.0.2.{part}" for part in range(4)],
        [f"::ffff:192.0.2.{part}" for part in range(4)],
    ],
    ids=["networks", "IPv4", "IPv4 by way of IPv6"],
)
def test_other_households_are_not_made_to_wait(counter, addresses):
    assert len({client_of(address) for address in addresses}) == 4
    assert {counter(address) for address in addresses} == {200}
    assert [counter(addresses[0]) for _again in range(2)] == [200, 429], "each has turns of its own"
