"""Pictures are opened from payload values: files below a root, addresses within limits and never in the private net."""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread

import httpcore
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qdrant_cir.errors import ImageError, InputError, MissingExtraError
from qdrant_cir.indexing.opening import PictureOpener, _is_public
from qdrant_cir.types import AddressLimits, ImageSource

PUBLIC = "93.184.215.14"
PRIVATE = [
    *("127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.127.255.255", "168.63.129.16"),
    *("192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8"),
    *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1"),
    *("fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
    *("2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1"),
    *("localhost", "127.1", ""),
]


@dataclass(slots=True)
class Web:
    """A server with handmade answers by path, and everything that was asked of it."""

    port: int = 0
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    over: Event = field(default_factory=Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def redirect(self, path: str, location: str, status: int = 302) -> None:
        self.answers[path] = answer(b"", status=status, location=location)


@pytest.fixture
def web() -> Iterator[Web]:
    serving = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            serving.asked.append((self.path, dict(self.headers.items())))
            serving.connections.add(self.client_address)
            # The client hangs up in the middle where it refuses an answer.
            with suppress(OSError):
                serving.answers.get(self.path, answer(b"", status=404))(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield serving
    finally:
        serving.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def answer(body: bytes, *, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


@dataclass(slots=True)
class Net:
    """Names and connections of a world in which every address is the test's own server."""

    web: Web
    names: dict[str, list[list[str]]]
    resolved: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)

    def resolve(self, host: str, port: int) -> list[str]:
        """The next answer for the name; the last one stays."""
        self.resolved.append(host)
        answers = self.names.get(host, [[host]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def connect(self, address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        self.connected.append(address)
        return httpcore.SyncBackend().connect_tcp("127.0.0.1", self.web.port, timeout=seconds)


def net(web: Web, **names: list[list[str]]) -> Net:
    return Net(web, {f"{name}.example": answers for name, answers in names.items()})


def opener(net: Net, *, seconds: float = 20) -> PictureOpener:
    return PictureOpener(resolve=net.resolve, connect=net.connect, limits=AddressLimits(seconds=seconds))


def refused(opening: PictureOpener, value: str) -> str:
    with pytest.raises(ImageError) as caught:
        opening(value)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestFiles:
    @pytest.mark.parametrize("value", ["a/b.jpg", "/a/b.jpg", "../b.jpg", "C:\\a\\b.jpg", "shoes:red.jpg", "a::b.jpg"])
    def test_without_a_root_a_path_is_taken_as_it_stands(self, value: str) -> None:
        assert PictureOpener()(value) == Path(value)

    @pytest.mark.parametrize(
        "value", ["red.jpg", "sub/../red.jpg", "{root}/red.jpg", "file:red.jpg", "FILE://{root}/red.jpg"]
    )
    def test_a_path_is_taken_from_the_root_on(self, tmp_path: Path, value: str) -> None:
        (tmp_path / "sub").mkdir()
        assert PictureOpener(root=tmp_path)(value.format(root=tmp_path)) == tmp_path.resolve() / "red.jpg"

    @pytest.mark.parametrize(
        "value",
        [
            *("../secret", "sub/../../secret", "{root}/../secret", "/etc/passwd", "{root}2/secret", "out/secret"),
            *("link", "file:///etc/passwd", "file:../secret", "file:%2e%2e/secret", "file://localhost/etc/passwd"),
        ],
    )
    def test_no_path_leads_out_of_the_root(self, tmp_path: Path, value: str) -> None:
        root, secret = tmp_path / "root", tmp_path / "secret"
        root.mkdir()
        (tmp_path / "root2").mkdir()
        secret.write_bytes(b"secret")
        (root / "out").symlink_to(tmp_path)
        (root / "link").symlink_to(secret)
        assert "does not lie below" in refused(PictureOpener(root=root), value.format(root=root))

    def test_links_within_the_root_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "red.jpg").touch()
        (tmp_path / "link").symlink_to("red.jpg")
        assert PictureOpener(root=tmp_path)("link") == tmp_path.resolve() / "red.jpg"

    def test_a_root_that_is_a_link_may_be_named_by_the_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "root").symlink_to("real")
        assert PictureOpener(root=tmp_path / "root")(f"{tmp_path}/root/a.jpg") == (tmp_path / "real/a.jpg").resolve()

    def test_a_circle_of_links_is_an_image_error(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with suppress(ImageError):
            # Python 3.13 resolves what it can of a circle; opening it is then the image reader's error.
            assert PictureOpener(root=tmp_path)("a/x").is_relative_to(tmp_path.resolve())  # type: ignore[union-attr]

    @given(
        parts=st.lists(st.sampled_from(["a", "/", ".", "..", "\\", "%2e", "file:", "//", "~", ":", "out"]), max_size=8)
    )
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_whatever_the_value_what_is_opened_lies_below_the_root(self, tmp_path: Path, parts: list[str]) -> None:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        if not (root / "out").is_symlink():
            (root / "out").symlink_to(tmp_path)
        try:
            opened = PictureOpener(root=root)("".join(parts))
        except ImageError:
            return
        assert isinstance(opened, Path)
        assert opened.resolve().is_relative_to(root.resolve())

    @pytest.mark.parametrize(
        ("address", "path"),
        [
            ("file:///a/b%20c.jpg", "/a/b c.jpg"),
            ("file:///a/b#1?.jpg", "/a/b#1?.jpg"),
            ("file://localhost/a.jpg", "/a.jpg"),
            ("file:/a.jpg", "/a.jpg"),
        ],
    )
    def test_a_file_address_is_the_path_in_it(self, address: str, path: str) -> None:
        assert PictureOpener()(address) == Path(path)

    @pytest.mark.parametrize(
        "value", ["", " ", "a\0b.jpg", "\ud800.jpg", "file:///a%00b", "file:///%ff", "file://host/a", "file://"]
    )
    def test_what_cannot_be_a_path_is_an_image_error(self, value: str) -> None:
        refused(PictureOpener(), value)

    def test_a_value_that_is_no_text_is_an_image_error(self) -> None:
        refused(PictureOpener(), 7)  # type: ignore[arg-type]

    def test_a_root_that_is_no_folder_is_refused_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not a folder"):
            PictureOpener(root=tmp_path / "missing")

    @pytest.mark.parametrize(
        "limits",
        [
            *({"max_bytes": wrong} for wrong in (0, -1, 1.5, True, "5")),
            *({"seconds": wrong} for wrong in (0, -1, float("nan"), float("inf"), True, "5")),
        ],
    )
    def test_limits_must_be_positive(self, limits: dict[str, float]) -> None:
        with pytest.raises(InputError, match=f"AddressLimits.{next(iter(limits))} is"):
            AddressLimits(**limits)  # type: ignore[arg-type]


class TestSchemes:
    @pytest.mark.parametrize(
        "value",
        [
            *("ftp://host/a.jpg", "memory://a.jpg", "gopher://host/", "github://a:b@main/x", "sftp://u:p@host/x"),
            *(
                "data:image/png;base64,AAAA",
                "data:," + "A" * 100_000,
                "javascript:alert(1)",
                "zip://a.jpg::http://host/a.zip",
            ),
            *(
                "simplecache::s3://bucket/a.jpg",
                "filecache::file:///etc/passwd",
                "local:///etc/passwd",
                "  ftp://host/a",
            ),
        ],
    )
    def test_an_unknown_scheme_is_refused_with_the_known_ones(self, value: str) -> None:
        message = refused(PictureOpener(), value)
        assert "abfs, abfss, az, file, gcs, gs, http, https, s3, s3a" in message
        assert len(message) < 500

    @pytest.mark.parametrize(
        "value",
        [
            *("http:host/a", "http:/host/a", "http://", "http:///a", "http://:80/", "http://h:0/", "http://h:65536/"),
            *("http://h:port/", "http://ho\nst/", "http://h/\x01", "http://[::1/", "https://\ud800/", "http://a\0b/"),
            *("http://" + "a" * 300 + ".com/", "http://h/" + "a" * 70_000, "http://xn--\u2603/", "http://a..b/"),
        ],
    )
    def test_an_address_that_is_not_valid_is_an_image_error(self, value: str) -> None:
        assert len(refused(PictureOpener(private_addresses=True), value)) < 500

    @pytest.mark.parametrize(
        "value",
        [
            *(
                "{}://user:SECRET@host.example/a.jpg",
                "{}://user:SECRET/x@host.example/",
                "{}://user:SE#SECRET@host.example/",
            ),
            *("{}://SECRET@host.example/", "{}:user:SECRET@host.example/", "{}://user:x://SECRET@host.example/"),
            *("{}://host.example/a?X-Amz-Signature=SECRET&id=1", "{}://host.example/a?id=1&access_token=SECRET"),
            *("xx::{}://user:SECRET@host.example/", "{}://user:\nSECRET@host.example/", "{}://host.example:SECRET@/"),
        ],
    )
    @pytest.mark.parametrize("scheme", ["http", "https", "s3", "az", "ftp", "file"])
    def test_no_message_holds_a_password_or_a_signature(self, value: str, scheme: str) -> None:
        opening = PictureOpener(resolve=lambda *_: ["10.0.0.1"])
        try:
            opened = opening(value.format(scheme))
        except (ImageError, MissingExtraError) as error:
            assert "SECRET" not in str(error)  # noqa: PT017 - some of them are paths
        else:
            # "ftp:name" is a file name, as "shoes:red.jpg" is.
            assert isinstance(opened, Path)

    @given(
        value=st.text(max_size=40) | st.builds("{}://{}".format, st.sampled_from(["http", "https", "file"]), st.text())
    )
    @example("http://[::1%25eth0]/")
    @example("http://\u24dbocalhost/")
    @settings(deadline=None)
    def test_whatever_the_value_nothing_but_an_image_error_leaves(self, value: str) -> None:
        opening = PictureOpener(resolve=lambda *_: [PUBLIC], connect=unreachable, limits=AddressLimits(seconds=5))
        try:
            opened: ImageSource = opening(value)
        except (ImageError, MissingExtraError) as error:
            assert str(error).isprintable()  # noqa: PT017 - some of them are paths
        else:
            assert isinstance(opened, Path)

    def test_nothing_is_loaded_before_an_address_is_opened(self) -> None:
        code = (
            "import sys; from qdrant_cir.indexing.opening import PictureOpener; PictureOpener()('a.jpg'); "
            "sys.exit(bool({'fsspec', 'httpx', 'httpcore', 'aiohttp'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def unreachable(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
    raise ConnectionRefusedError(111, "Connection refused")


class TestWeb:
    def test_an_address_gives_the_bytes_that_the_server_sent(self, web: Web) -> None:
        web.answers["/r%C3%B6d%20shoe.jpg?size=2%203"] = answer(b"picture")
        assert PictureOpener(private_addresses=True)(f" {web.url}/röd shoe.jpg?size=2 3#top ") == b"picture"

    def test_the_system_resolves_names_where_nothing_else_is_given(self, web: Web) -> None:
        web.answers["/a"] = answer(b"picture")
        assert PictureOpener(private_addresses=True)(f"http://localhost:{web.port}/a") == b"picture"

    def test_chunks_are_put_together(self, web: Web) -> None:
        def chunked(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("transfer-encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"3\r\npic\r\n4\r\nture\r\n0\r\n\r\n")

        web.answers["/a"] = chunked
        assert PictureOpener(private_addresses=True)(f"{web.url}/a") == b"picture"

    @pytest.mark.parametrize("status", [201, 204, 206, 304, 401, 403, 404, 429, 500, 503])
    def test_any_status_but_200_is_named(self, web: Web, status: int) -> None:
        web.answers["/a"] = answer(b"", status=status)
        assert f"answered {status}" in refused(PictureOpener(private_addresses=True), f"{web.url}/a")
        assert web.paths == ["/a"]

    def test_an_empty_answer_is_refused(self, web: Web) -> None:
        web.answers["/a"] = answer(b"")
        assert "empty" in refused(PictureOpener(private_addresses=True), f"{web.url}/a")

    def test_a_body_that_breaks_off_is_refused(self, web: Web) -> None:
        def broken(handler: BaseHTTPRequestHandler) -> None:
            answer(b"pic", content_length="7")(handler)
            handler.close_connection = True

        web.answers["/a"] = broken
        assert "cannot be read" in refused(PictureOpener(private_addresses=True), f"{web.url}/a")

    def test_packed_content_is_refused(self, web: Web) -> None:
        web.answers["/a"] = answer(b"x", content_encoding="gzip")
        assert "packed (gzip)" in refused(PictureOpener(private_addresses=True), f"{web.url}/a")

    @pytest.mark.parametrize(
        "garbage", [b"", b"\0" * 99, b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", b"SSH-2.0-x\r\n"]
    )
    def test_what_is_no_http_is_an_image_error(self, web: Web, garbage: bytes) -> None:
        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(garbage)
            handler.close_connection = True

        web.answers["/a"] = send
        refused(PictureOpener(private_addresses=True), f"{web.url}/a")

    def test_a_port_where_nobody_listens_is_an_image_error(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        assert "refused" in refused(PictureOpener(private_addresses=True), f"http://127.0.0.1:{port}/a")

    def test_a_name_without_an_address_is_an_image_error(self) -> None:
        def resolve(host: str, port: int) -> list[str]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        assert "no.example cannot be resolved" in refused(PictureOpener(resolve=resolve), "http://no.example/a")
        assert "has no address" in refused(PictureOpener(resolve=lambda *_: []), "http://no.example/a")

    def test_the_name_stands_in_the_request_and_the_credentials_in_its_header(self, web: Web) -> None:
        web.answers["/a"] = answer(b"picture")
        world = net(web, shop=[[PUBLIC]])
        opener(world)("http://us%40er:pass@shop.example:8080/a")
        (_, headers) = web.asked[0]
        assert headers["Host"] == "shop.example:8080"
        assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"us@er:pass"

    def test_no_cookie_is_kept(self, web: Web) -> None:
        web.answers["/a"] = answer(b"picture", set_cookie="tracked=1; Path=/")
        opening = PictureOpener(private_addresses=True)
        opening(f"{web.url}/a")
        opening(f"{web.url}/a")
        assert all("Cookie" not in headers for _, headers in web.asked)

    def test_a_connection_is_used_again(self, web: Web) -> None:
        web.answers["/a"] = answer(b"picture")
        opening = PictureOpener(private_addresses=True)
        assert [opening(f"{web.url}/a") for _ in range(3)] == [b"picture"] * 3
        assert len(web.connections) == 1

    def test_an_opener_serves_several_threads(self, web: Web) -> None:
        web.answers = {f"/{number}": answer(b"%d" % number) for number in range(40)}
        opening = PictureOpener(private_addresses=True)
        with ThreadPoolExecutor(8) as pool:
            opened = list(pool.map(opening, [f"{web.url}/{number}" for number in range(40)]))
        assert opened == [b"%d" % number for number in range(40)]

    def test_proxies_of_the_environment_are_not_used(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9/")
        web.answers["/a"] = answer(b"picture")
        assert PictureOpener(private_addresses=True)(f"{web.url}/a") == b"picture"


class TestLimits:
    def test_a_content_length_over_the_limit_is_refused_before_the_body_is_read(self, web: Web) -> None:
        def announce(handler: BaseHTTPRequestHandler) -> None:
            answer(b"", content_length="11")(handler)
            web.over.wait(30)

        web.answers["/a"] = announce
        started = time.monotonic()
        message = refused(
            PictureOpener(private_addresses=True, limits=AddressLimits(max_bytes=10, seconds=25)), f"{web.url}/a"
        )
        assert "11 bytes; at most 10" in message
        assert time.monotonic() - started < 10

    def test_a_body_over_the_limit_is_refused_while_it_is_read(self, web: Web) -> None:
        def endless(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("transfer-encoding", "chunked")
            handler.end_headers()
            while not web.over.is_set():
                handler.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")

        web.answers["/a"] = endless
        assert "more than 100000 bytes" in refused(
            PictureOpener(private_addresses=True, limits=AddressLimits(max_bytes=100_000)), f"{web.url}/a"
        )

    def test_a_body_of_exactly_the_limit_is_read(self, web: Web) -> None:
        web.answers["/a"] = answer(b"x" * 10)
        assert PictureOpener(private_addresses=True, limits=AddressLimits(max_bytes=10))(f"{web.url}/a") == b"x" * 10

    @pytest.mark.parametrize(
        "start", [b"", b"HTTP/1.1 200 OK\r\nx-a: ", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"]
    )
    def test_an_answer_that_drips_ends_with_the_time(self, web: Web, start: bytes) -> None:
        def drip(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(start or b"HTTP/1.1 ")
            while not web.over.wait(0.02):
                handler.wfile.write(b"1")

        web.answers["/a"] = drip
        started = time.monotonic()
        message = refused(PictureOpener(private_addresses=True, limits=AddressLimits(seconds=0.5)), f"{web.url}/a")
        assert "did not arrive within 0.5 s" in message
        assert 0.4 < time.monotonic() - started < 5

    def test_redirects_do_not_begin_the_time_again(self, web: Web) -> None:
        def slow(handler: BaseHTTPRequestHandler) -> None:
            web.over.wait(0.3)
            answer(b"", status=302, location="/a")(handler)

        web.answers["/a"] = slow
        assert "did not arrive" in refused(
            PictureOpener(private_addresses=True, limits=AddressLimits(seconds=0.7)), f"{web.url}/a"
        )

    def test_a_server_that_never_answers_ends_with_the_time(self, web: Web) -> None:
        web.answers["/a"] = lambda _: web.over.wait(30) and None
        assert "did not arrive" in refused(
            PictureOpener(private_addresses=True, limits=AddressLimits(seconds=0.3)), f"{web.url}/a"
        )

    def test_a_resolver_that_never_answers_ends_with_the_time(self, web: Web) -> None:
        def resolve(host: str, port: int) -> list[str]:
            web.over.wait(30)
            return [PUBLIC]

        started = time.monotonic()
        assert "did not arrive" in refused(
            PictureOpener(resolve=resolve, limits=AddressLimits(seconds=0.3)), "http://shop.example/a"
        )
        assert time.monotonic() - started < 10

    def test_each_call_has_its_own_time(self, web: Web) -> None:
        web.answers["/a"] = answer(b"picture")
        opening = PictureOpener(private_addresses=True, limits=AddressLimits(seconds=2))
        opening(f"{web.url}/a")
        time.sleep(2.1)
        assert opening(f"{web.url}/a") == b"picture"


class TestPrivateAddresses:
    @pytest.mark.parametrize("address", PRIVATE)
    def test_an_address_that_is_not_public_is_never_connected(self, web: Web, address: str) -> None:
        world = net(web, shop=[[address]])
        message = refused(opener(world), "http://shop.example/a")
        assert "shop.example" in message
        assert "private_addresses=True" in message
        assert world.connected == []

    @pytest.mark.parametrize(
        "address", [PUBLIC, "8.8.8.8", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"]
    )
    def test_a_public_address_is_connected(self, web: Web, address: str) -> None:
        web.answers["/a"] = answer(b"picture")
        world = net(web, shop=[[address]])
        assert opener(world)("http://shop.example/a") == b"picture"
        assert world.connected == [address]

    @given(address=st.ip_addresses())
    def test_what_is_public_here_is_global_for_the_standard_library_too(self, address: object) -> None:
        if _is_public(str(address)):
            parsed = ip_address(str(address))
            assert parsed.is_global
            assert not parsed.is_multicast

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "[::1]", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "127.0.0.1."]
    )
    def test_no_spelling_of_this_machine_is_let_through(self, web: Web, host: str) -> None:
        refused(PictureOpener(), f"http://{host}:{web.port}/a")
        assert web.asked == []

    def test_one_private_address_among_public_ones_refuses_the_name(self, web: Web) -> None:
        world = net(web, shop=[[PUBLIC, "10.0.0.1"]])
        assert "10.0.0.1" in refused(opener(world), "http://shop.example/a")
        assert world.connected == []

    def test_the_next_address_is_tried_where_the_first_does_not_answer(self, web: Web) -> None:
        web.answers["/a"] = answer(b"picture")
        world = net(web, shop=[["8.8.8.8", PUBLIC]])

        def connect(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
            return (
                unreachable(address, port, seconds) if address == "8.8.8.8" else world.connect(address, port, seconds)
            )

        assert PictureOpener(resolve=world.resolve, connect=connect)("http://shop.example/a") == b"picture"

    def test_a_name_that_changes_is_connected_at_the_address_that_was_checked(self, web: Web) -> None:
        web.answers["/a"] = answer(b"picture")
        world = net(web, shop=[[PUBLIC], ["127.0.0.1"]])
        assert opener(world)("http://shop.example/a") == b"picture"
        assert (world.resolved, world.connected) == (["shop.example"], [PUBLIC])

    def test_a_new_connection_to_a_name_that_changed_is_checked_again(self, web: Web) -> None:
        web.answers["/a"] = answer(b"picture", connection="close")
        world = net(web, shop=[[PUBLIC], ["127.0.0.1"]])
        opening = opener(world)
        assert opening("http://shop.example/a") == b"picture"
        assert "127.0.0.1" in refused(opening, "http://shop.example/a")
        assert world.connected == [PUBLIC]

    def test_a_redirect_to_the_same_name_that_changed_is_refused(self, web: Web) -> None:
        web.answers["/a"] = answer(b"", status=302, location="/b", connection="close")
        world = net(web, shop=[[PUBLIC], ["169.254.169.254"]])
        assert "169.254.169.254" in refused(opener(world), "http://shop.example/a")
        assert web.paths == ["/a"]


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_followed(self, web: Web, status: int) -> None:
        web.redirect("/a", "b?c=1", status)
        web.redirect("/b?c=1", f"{web.url}/d")
        web.answers["/d"] = answer(b"picture")
        assert PictureOpener(private_addresses=True)(f"{web.url}/a") == b"picture"

    @pytest.mark.parametrize(
        "target", ["http://inside.example/b", "//inside.example/b", "http://10.0.0.5/b", "http://[::1]/b"]
    )
    def test_a_redirect_into_the_private_network_is_refused(self, web: Web, target: str) -> None:
        web.redirect("/a", "http://cdn.example/b")
        web.redirect("/b", target)
        world = net(web, shop=[[PUBLIC]], cdn=[["8.8.8.8"]], inside=[["10.0.0.5"]])
        message = refused(opener(world), "http://shop.example/a")
        assert message.startswith("http://shop.example/a cannot be read: it redirects to ")
        assert world.connected == [PUBLIC, "8.8.8.8"]
        assert web.paths == ["/a", "/b"]

    @pytest.mark.parametrize(
        "target", ["ftp://host/a", "file:///etc/passwd", "data:,x", "http://h:99999/", "http://h\x7f/"]
    )
    def test_a_redirect_to_anything_but_the_web_is_refused(self, web: Web, target: str) -> None:
        web.redirect("/a", target)
        assert "it redirects to" in refused(PictureOpener(private_addresses=True), f"{web.url}/a")

    def test_redirects_come_to_an_end(self, web: Web) -> None:
        web.redirect("/a", "/a")
        assert "more than 5 times" in refused(PictureOpener(private_addresses=True), f"{web.url}/a")
        assert len(web.asked) == 6

    def test_the_body_of_a_redirect_is_not_read(self, web: Web) -> None:
        web.answers["/a"] = answer(b"", status=302, location="/b", content_length="1000000000000")
        web.answers["/b"] = answer(b"picture")
        assert PictureOpener(private_addresses=True)(f"{web.url}/a") == b"picture"

    def test_credentials_go_to_their_own_server_alone(self, web: Web) -> None:
        web.redirect("/a", "http://shop.example/b")
        web.redirect("/b", "http://other.example/c")
        web.answers["/c"] = answer(b"picture")
        opener(net(web, shop=[[PUBLIC]], other=[["8.8.8.8"]]))("http://user:pass@shop.example/a")
        assert ["Authorization" in headers for _, headers in web.asked] == [True, True, False]

    def test_a_password_in_a_redirect_is_masked(self, web: Web) -> None:
        web.redirect("/a", "http://user:SECRET@10.0.0.5/b?token=SECRET")
        assert "SECRET" not in refused(opener(net(web, shop=[[PUBLIC]])), "http://shop.example/a")


class TestTls:
    @pytest.fixture
    def secure(self, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
        """The port before which a certificate for shop.example stands, which this process trusts."""
        if shutil.which("openssl") is None:
            pytest.skip("needs the openssl command")
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        wanted = ["-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.run(["openssl", "req", "-x509", *kind, *wanted, *files], check=True, capture_output=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(b"picture")(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def finish_request(self, request: object, client_address: object) -> None:
                # A client that refuses the certificate breaks off.
                with suppress(OSError), context.wrap_socket(request, server_side=True) as wrapped:  # type: ignore[arg-type]
                    super().finish_request(wrapped, client_address)  # type: ignore[arg-type]

        server = Server(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
        server.server_close()

    def test_the_certificate_is_verified_against_the_name_and_not_the_address(self, secure: int) -> None:
        def connect(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
            assert address == PUBLIC
            return httpcore.SyncBackend().connect_tcp("127.0.0.1", secure, timeout=seconds)

        opening = PictureOpener(resolve=lambda *_: [PUBLIC], connect=connect)
        assert opening("https://shop.example/a") == b"picture"
        assert "CERTIFICATE_VERIFY_FAILED" in refused(opening, "https://other.example/a")
        assert "CERTIFICATE_VERIFY_FAILED" in refused(opening, f"https://{PUBLIC}/a")

    def test_a_server_that_never_greets_ends_with_the_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            opening = PictureOpener(private_addresses=True, limits=AddressLimits(seconds=0.3))
            assert "did not arrive" in refused(opening, f"https://127.0.0.1:{silent.getsockname()[1]}/a")


# fsspec.registry names two things: the module, and the read-only view that it exports.
REGISTRY = import_module("fsspec.registry")._registry


class Bucket(MemoryFileSystem):
    """An object store that fsspec takes for Google's."""

    protocol = ("gs",)
    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return f"/{path.removeprefix('gs://').lstrip('/')}"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        if "slow" in path:
            time.sleep(2)
        if "odd" in path:
            raise KeyError("gs://user:SECRET@bucket/odd")
        return bytes(super().cat_file(path, start=start, end=end))


class TestObjects:
    @pytest.fixture
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> Bucket:
        monkeypatch.setitem(REGISTRY, "gs", Bucket)
        bucket = Bucket()
        bucket.store.clear()
        return bucket

    def test_an_object_gives_its_bytes(self, bucket: Bucket) -> None:
        bucket.pipe_file("/bucket/red.jpg", b"picture")
        assert PictureOpener()("gs://bucket/red.jpg") == b"picture"
        assert PictureOpener(limits=AddressLimits(max_bytes=7))("GS://bucket/red.jpg") == b"picture"

    def test_an_object_over_the_limit_is_refused(self, bucket: Bucket) -> None:
        bucket.pipe_file("/bucket/red.jpg", b"picture")
        assert "more than 6 bytes" in refused(PictureOpener(limits=AddressLimits(max_bytes=6)), "gs://bucket/red.jpg")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("missing", "no such object"), ("empty", "empty"), ("slow", "did not arrive"), ("odd", "cannot be read")],
    )
    def test_whatever_goes_wrong_is_an_image_error(self, bucket: Bucket, name: str, reason: str) -> None:
        bucket.pipe_file("/bucket/empty", b"")
        message = refused(PictureOpener(limits=AddressLimits(seconds=0.5)), f"gs://bucket/{name}")
        assert reason in message
        assert "SECRET" not in message

    @pytest.mark.parametrize(
        "value",
        [
            *(
                "gs://",
                "gs://bucket",
                "gs://bucket/",
                "gs:bucket/a",
                "gs:///a",
                "gs://key:secret@bucket/a",
                "gs://host:80/a",
            ),
            *(
                "gs://bucket/a::file:///etc/passwd",
                "gs://bucket/a::http://127.0.0.1/",
                "az://c@127.0.0.1/a",
                "az://c@evil.com/a",
            ),
            *(
                "abfs://c@evil.com#.blob.core.windows.net/a",
                "abfss://c@a.blob.core.windows.net.evil.com/a",
                "az://c@a\\b/a",
            ),
        ],
    )
    def test_the_value_chooses_a_bucket_and_never_a_host(self, bucket: Bucket, value: str) -> None:
        bucket.pipe_file("/bucket/a", b"picture")
        refused(PictureOpener(), value)

    @pytest.mark.parametrize(
        ("value", "library"),
        [
            *(
                ("s3://b/a", "s3fs"),
                ("s3a://b/a", "s3fs"),
                ("gs://b/a", "gcsfs"),
                ("gcs://b/a", "gcsfs"),
                ("az://c/a", "adlfs"),
            ),
            *(("abfs://c@acc.dfs.core.windows.net/a", "adlfs"), ("abfss://c@acc.dfs.core.windows.net/a", "adlfs")),
        ],
    )
    @pytest.mark.parametrize("missing", ["its own", "fsspec"])
    def test_a_missing_library_is_named_with_the_command(
        self, value: str, library: str, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scheme, _, _ = value.partition(":")
        monkeypatch.delitem(REGISTRY, scheme, raising=False)
        monkeypatch.setitem(sys.modules, library, None)
        if missing == "fsspec":
            for name in ("fsspec", "fsspec.core"):
                monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError) as caught:
            PictureOpener()(value)
        assert f'pip install "qdrant-cir[urls]" {library}' in str(caught.value)

    @pytest.mark.parametrize("library", ["httpx", "httpcore"])
    def test_the_web_without_httpx_names_the_command(self, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(MissingExtraError, match=r"qdrant-cir\[urls\]"):
            PictureOpener()("http://shop.example/a")
