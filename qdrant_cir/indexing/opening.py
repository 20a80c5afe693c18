"""How the picture of a point is opened from the value in its payload: a file path or an address.

The values were written by whoever fills the collection, so they are not trusted: a file may have to lie below a root,
and an address may not lead into the private network, take more than its share of memory, or hold a worker for ever.

``http`` and ``https`` are read with httpcore, the lower half of httpx, and not through fsspec. fsspec says of its HTTP
file system that it filters no addresses. Its client resolves names and follows redirects by itself, so a name that was
checked before can lead elsewhere when it is connected (DNS rebinding). httpcore lets the caller open the connection:
here the name is resolved once, every address is checked, and the socket is connected to the very address that was
checked. Each redirect and each new connection passes the same place. TLS still verifies the certificate against the
name. Each step on the socket gets only the time that is left of the whole, so an answer that drips byte by byte ends
in time, in its headers too.

Object stores (``s3``, ``gs``, ``az``) are read through fsspec. Their host comes from the process's own configuration,
as do the credentials: whoever writes the payload can have any object read that these credentials can read.
"""

from __future__ import annotations

import base64
import math
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, cast
from urllib.parse import unquote, unquote_to_bytes

from qdrant_cir.errors import ImageError, InputError, MissingExtraError
from qdrant_cir.types import AddressLimits, ImageSource

if TYPE_CHECKING:
    import ssl

    import httpcore
    import httpx

    from qdrant_cir.storage.attachment import Attachment

__all__ = ["PictureOpener", "is_address"]

_WEB = ("http", "https")
_LIBRARIES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
_KNOWN = sorted({*_WEB, *_LIBRARIES, "file"})
# Schemes that are written without "//"; "shoes:red.jpg" is a file name.
_UNSLASHED = frozenset(
    {*_KNOWN, "data", "javascript", "vbscript", "blob", "about", "mailto", "urn", "cid", "view-source"}
)
# Two letters at least: "C:\x.jpg" is a Windows path.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//|:)?")

# Bucket, or container and Azure account. Nothing else, so that the host is never the value's choice.
_BUCKET = re.compile(r"[A-Za-z0-9_$][A-Za-z0-9_.$-]*")
_CONTAINER = re.compile(
    r"[A-Za-z0-9_$][A-Za-z0-9_.$-]*"
    r"(@[A-Za-z0-9-]+\.(dfs|blob)\.(core\.windows\.net|core\.usgovcloudapi\.net|core\.chinacloudapi\.cn|fabric\.microsoft\.com))?"
)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_MAX_TRIED = 4
_LONGEST_HOST = 253
# Servers close idle connections after two seconds or more; a request must not meet that moment.
_IDLE_SECONDS = 2.0
_SHOWN = 200
_OF_SIZE = "allow more with address_limits=, or attach again with --max-megabytes"
_OF_TIME = "allow more with address_limits=, or attach again with --address-seconds"

# Beyond this nothing is masked, for nothing is shown: a data address can hold a whole picture.
_MASKED = 8192
_AUTHORITY = re.compile(r"[^/?#]*")
_UNSLASHED_USERINFO = re.compile(r"^([A-Za-z0-9+.-]+:/?)(?!/).*@")
_FIELD = re.compile(r"([?&;#])([^=&;#\s]{1,128})=([^&;#\s]*)")
_SECRET_NAMES = re.compile(r"sig|token|secret|pass|pwd|key|auth|credential", re.IGNORECASE)

# IANA special-purpose registries, written out: ipaddress's answers differ between Python versions.
_CLOSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host, unspecified
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers (CGNAT); Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform, reachable from its machines alone
        "169.254.0.0/16",  # link-local; metadata of the clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# All else in IPv6 is closed: loopback, mapped and translated IPv4 (NAT64), unique local, link-local, multicast.
_OPEN_V6 = IPv6Network("2000::/3")
_CLOSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, holds an IPv4 address
        "3fff::/20",  # documentation
    )
)

_T = TypeVar("_T")


class _UnreadableError(Exception):
    """Why a value cannot be read: a clause that follows its name and a colon."""


class PictureOpener:
    """Open pictures by the values that payloads hold; usable from several threads.

    A value with a scheme (``http https s3 s3a gs gcs az abfs abfss file``) is an address. Anything else is a file path,
    a Windows path too.

    Connections to web servers are kept for two seconds of rest. Proxies of the environment are not used, for a proxy
    would resolve the name itself. There are no retries.

    Args:
        root: folder below which files must lie, after symbolic links and ``..`` are resolved; relative paths start
            there. Without it paths are taken as they stand.
        private_addresses: web addresses may lead to hosts that are not public (loopback, private, link-local, ...).
        limits: of one address; files are not limited here.
        resolve: host and port to IP addresses, best first; the system's resolver by default.
        connect: IP address, port and seconds to an open stream; TCP by default.

    Raises:
        InputError: root is not a folder.
    """

    def __init__(
        self,
        *,
        root: str | PathLike[str] | None = None,
        private_addresses: bool = False,
        limits: AddressLimits = AddressLimits(),  # noqa: B008 - frozen
        resolve: Callable[[str, int], list[str]] | None = None,
        connect: Callable[[str, int, float], httpcore.NetworkStream] | None = None,
    ) -> None:
        self._root = None if root is None else _folder(Path(root))
        self._max_bytes = limits.max_bytes
        self._timeout = limits.seconds
        self._deadline = _Deadline()
        self._network = _CheckedNetwork(
            self._deadline,
            private_addresses=private_addresses,
            resolve=resolve or _system_addresses,
            connect=connect or _open_stream,
        )
        self._pool: httpcore.ConnectionPool | None = None
        self._pool_lock = threading.Lock()

    @classmethod
    def of_attached(cls, attachment: Attachment, *, root: str | PathLike[str] | None = None) -> Self:
        """Open the pictures of an attached collection, as its attachment says; ``root`` outweighs the kept one."""
        return cls(
            root=attachment.root if root is None else root,
            private_addresses=attachment.private_addresses,
            limits=attachment.address_limits or AddressLimits(),
        )

    def __call__(self, value: str) -> ImageSource:
        """Open one picture; it is not decoded, and a file is not read either.

        Returns:
            The path for a file (resolved where there is a root), the bytes for an address.

        Raises:
            ImageError: it cannot be read or is refused. One sentence or two, with passwords and signatures masked.
            MissingExtraError: the scheme needs a library that is not installed.
        """
        if not isinstance(value, str):
            raise ImageError(f"Expected the path or the address of a picture, got {type(value).__name__}.")
        if not value.strip():
            raise ImageError("The picture's path or address is empty.")
        scheme = _scheme(value)
        try:
            return self._file(value) if scheme is None else self._address(value.strip(), scheme)
        except _UnreadableError as error:
            raise ImageError(f"{_shown(value, address=scheme is not None)} cannot be read: {error}.") from error
        except TimeoutError as error:
            raise ImageError(
                f"{_shown(value, address=True)} did not arrive within {self._timeout:g} s ({_OF_TIME})."
            ) from error
        except (ImageError, MissingExtraError, MemoryError):
            raise
        # Clients of four kinds of servers raise whatever they stumbled over, so every kind is translated here.
        except Exception as error:
            shown = _shown(value, address=scheme is not None)
            raise ImageError(f"{shown} cannot be read: {_reason(error)}.") from error

    def _file(self, value: str) -> Path:
        _check_characters(value)
        path = Path(value)
        if self._root is None:
            return path
        joined = self._root / path
        # On Windows resolving \\host\share would log in there, so another drive is refused before.
        if joined.drive.lower() != self._root.drive.lower():
            raise _UnreadableError(f"it does not lie below {self._root}")
        try:
            resolved = joined.resolve()
        except (OSError, RuntimeError) as error:
            raise _UnreadableError(f"its path cannot be resolved ({_reason(error)})") from error
        if not resolved.is_relative_to(self._root):
            raise _UnreadableError(f"it does not lie below {self._root}")
        return resolved

    def _address(self, address: str, scheme: str) -> ImageSource:
        _check_characters(address)
        if scheme not in _KNOWN:
            raise _UnreadableError(f"the scheme {_shown(scheme, address=False)!r} is not one of {', '.join(_KNOWN)}")
        if scheme == "file":
            return self._file(_file_path(address))
        if not address[len(scheme) :].startswith("://"):
            raise _UnreadableError(f"the address must begin with {scheme}://")
        with self._deadline.within(self._timeout):
            content = self._web(address) if scheme in _WEB else self._object(address, scheme)
        if not content:
            raise _UnreadableError("it is empty (0 bytes)")
        return content

    def _web(self, address: str) -> bytes:
        try:
            import httpcore

            pool = self._web_pool()
        except ImportError as error:
            raise MissingExtraError('web addresses need httpx: pip install "qdrant-cir[urls]"') from error
        url = _web_url(address)
        for hop in range(_MAX_REDIRECTS + 1):
            try:
                answer = self._get(pool, url)
                if isinstance(answer, bytes):
                    return answer
                url = _followed(url, answer)
            except _UnreadableError as error:
                if hop == 0:
                    raise
                raise _redirect_refused(str(url.copy_with(userinfo=b"")), error) from error
            except httpcore.TimeoutException as error:
                raise TimeoutError from error
        raise _UnreadableError(f"it redirects more than {_MAX_REDIRECTS} times")

    def _get(self, pool: httpcore.ConnectionPool, url: httpx.URL) -> bytes | str:
        """Return the body of one answer, or the location that it redirects to."""
        import httpcore

        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        with pool.stream("GET", target, headers=_request_headers(url)) as response:
            headers = {name.lower(): value for name, value in response.headers}
            location = headers.get(b"location", b"").decode("utf-8", errors="replace")
            if response.status in _REDIRECTS and location:
                return location
            if response.status != 200:
                raise _UnreadableError(f"it answered {response.status}")
            coding = headers.get(b"content-encoding", b"identity").decode("ascii", errors="replace")
            if coding.strip().lower() not in {"", "identity"}:
                # Not unpacked: a few bytes could become gigabytes, and pictures are compressed already.
                raise _UnreadableError(f"its content is packed ({_shown(coding, address=False)})")
            length = headers.get(b"content-length", b"0")
            if int(length) > self._max_bytes:
                raise _UnreadableError(f"it has {int(length)} bytes; at most {self._max_bytes} are read ({_OF_SIZE})")
            body = bytearray()
            for part in response.iter_stream():
                body += part
                if len(body) > self._max_bytes:
                    raise _UnreadableError(f"it has more than {self._max_bytes} bytes ({_OF_SIZE})")
            return bytes(body)

    def _web_pool(self) -> httpcore.ConnectionPool:
        import httpcore
        import httpx

        with self._pool_lock:
            if self._pool is None:
                self._pool = httpcore.ConnectionPool(
                    ssl_context=httpx.create_ssl_context(),
                    max_connections=None,
                    max_keepalive_connections=32,
                    keepalive_expiry=_IDLE_SECONDS,
                    # Called by its methods' names; a subclass would load httpcore for paths alone.
                    network_backend=cast("httpcore.NetworkBackend", self._network),
                )
                weakref.finalize(self, self._pool.close)
            return self._pool

    def _object(self, address: str, scheme: str) -> bytes:
        library = _LIBRARIES[scheme]
        bucket, _, key = address[len(scheme) + 3 :].partition("/")
        name = _CONTAINER if library == "adlfs" else _BUCKET
        if not name.fullmatch(bucket) or not key.strip("/"):
            raise _UnreadableError(f"expected {scheme}://bucket/object, with credentials in the environment")
        if "::" in address:
            raise _UnreadableError("addresses that are chained with '::' are not opened")
        command = f'pip install "qdrant-cir[urls]" {library}'
        try:
            import fsspec.core
        except ImportError as error:
            raise MissingExtraError(f"{scheme} addresses need fsspec and {library}: {command}") from error
        try:
            fsspec.get_filesystem_class(scheme)
        # ValueError: adlfs registers abfss only when it is installed.
        except (ImportError, ValueError) as error:
            raise MissingExtraError(f"{scheme} addresses need {library}: {command}") from error
        # Made in the caller's thread, because fsspec keeps some file systems by thread.
        filesystem, path = fsspec.core.url_to_fs(f"{scheme}{address[len(scheme) :]}")
        # One request for a range, instead of one for the size and one for the content.
        try:
            content = _in_time(
                lambda: filesystem.cat_file(path, start=0, end=self._max_bytes + 1), self._deadline.left()
            )
        except FileNotFoundError as error:
            raise _UnreadableError("there is no such object") from error
        if not isinstance(content, bytes):
            raise _UnreadableError(f"{library} returned {type(content).__name__} and not bytes")
        if len(content) > self._max_bytes:
            raise _UnreadableError(f"it has more than {self._max_bytes} bytes ({_OF_SIZE})")
        return content


class _Deadline(threading.local):
    """When the call that runs in this thread must be over."""

    def __init__(self) -> None:
        self._ends = math.inf

    def within(self, seconds: float) -> _Deadline:
        """Return itself, to be entered: the time begins now."""
        self._ends = time.monotonic() + seconds
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._ends = math.inf

    def left(self) -> float:
        """Return the seconds that are left. Raises TimeoutError when there are none."""
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


class _CheckedNetwork:
    """What httpcore opens connections with: to addresses that were checked, within the deadline.

    The names and arguments of the methods are those of ``httpcore.NetworkBackend``.
    """

    def __init__(
        self,
        deadline: _Deadline,
        *,
        private_addresses: bool,
        resolve: Callable[[str, int], list[str]],
        connect: Callable[[str, int, float], httpcore.NetworkStream],
    ) -> None:
        self._deadline = deadline
        self._private_addresses = private_addresses
        self._resolve = resolve
        self._connect = connect

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[object] | None = None,
    ) -> _TimedStream:
        import httpcore

        addresses = self._checked(host, port)[:_MAX_TRIED]
        for number, address in enumerate(addresses):
            # A first address that never answers must leave time for the next one.
            seconds = self._deadline.left() / (len(addresses) - number)
            try:
                return _TimedStream(self._connect(address, port, seconds), self._deadline)
            except (httpcore.NetworkError, httpcore.TimeoutException, OSError):
                if number == len(addresses) - 1:
                    raise
        raise _UnreadableError(f"its host {host} has no address")

    def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = _in_time(lambda: self._resolve(host, port), self._deadline.left())
        except TimeoutError:
            raise
        # UnicodeError: a label of more than 63 letters.
        except (OSError, UnicodeError) as error:
            raise _UnreadableError(f"its host {host} cannot be resolved ({_reason(error)})") from error
        for address in addresses:
            if not self._private_addresses and not _is_public(address):
                raise _UnreadableError(
                    f"its host {host} has the address {address}, which is not public; "
                    "private_addresses=True allows such hosts"
                )
        return addresses


class _TimedStream:
    """An open connection whose every step gets the time that is left; methods as in ``httpcore.NetworkStream``."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _TimedStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _system_addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def _open_stream(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
    import httpcore

    return httpcore.SyncBackend().connect_tcp(address, port, timeout=seconds)


def _is_public(address: str) -> bool:
    """Whether an address belongs to the public internet; False for what is no IP address."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _CLOSED_V4)
    return parsed in _OPEN_V6 and not any(parsed in network for network in _CLOSED_V6)


def _in_time(work: Callable[[], _T], seconds: float) -> _T:
    """Return what ``work`` returns. Raises TimeoutError when the time is over; its thread then ends by itself."""
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        # Raised again in the caller's thread, whatever it is.
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="qdrant-cir-opening", daemon=True).start()
    return outcome.result(timeout=seconds)


def is_address(value: str) -> bool:
    """Return whether a value names a picture on another machine, and not a file."""
    return _scheme(value) not in (None, "file")


def _scheme(value: str) -> str | None:
    """Return the scheme of an address in lower case, None for a file path."""
    found = _SCHEME.match(value.strip())
    if found is None:
        return None
    scheme, mark = found[1].lower(), found[2]
    # "simplecache::s3://bucket/key" is a chain of fsspec, "a::b.jpg" a file.
    is_chain = mark == ":" and "://" in value
    return scheme if mark == "//" or is_chain or scheme in _UNSLASHED else None


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise _UnreadableError("it holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _UnreadableError("it is not valid Unicode (half of a surrogate pair)") from error


def _folder(root: Path) -> Path:
    try:
        resolved = root.resolve()
        is_folder = resolved.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"The root {root} cannot be opened: {_reason(error)}") from error
    if not is_folder:
        raise InputError(
            f"The root {resolved} is not a folder. Give the folder that the pictures lie below now; of an attached "
            "collection with attach(..., root=...)."
        )
    return resolved


def _file_path(address: str) -> str:
    """Return the path of a ``file:`` address; "?" and "#" are part of it, as unescaped file names have them."""
    rest = address[len("file:") :]
    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        if host.lower() not in {"", "localhost"}:
            raise _UnreadableError("a file address names a path on this machine, as file:///folder/picture.jpg")
        rest = f"/{path}"
    try:
        decoded = unquote_to_bytes(rest).decode()
    except UnicodeDecodeError as error:
        raise _UnreadableError("its escaped path is not UTF-8") from error
    if not decoded.strip("/"):
        raise _UnreadableError("the file address has no path")
    return decoded[1:] if os.name == "nt" and re.match(r"/[A-Za-z]:", decoded) else decoded


def _web_url(address: str) -> httpx.URL:
    import httpx

    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        # Without httpx's reason: it may quote a password.
        raise _UnreadableError("the address is not valid") from None
    return _checked_url(url)


def _checked_url(url: httpx.URL) -> httpx.URL:
    if url.scheme not in _WEB:
        raise _UnreadableError("only http and https are followed")
    if not url.raw_host:
        raise _UnreadableError("the address names no host")
    if len(url.raw_host) > _LONGEST_HOST:
        raise _UnreadableError("the name of its host is too long")
    if url.port is not None and not 0 < url.port < 65536:
        raise _UnreadableError(f"{url.port} is not a port")
    return url


def _followed(url: httpx.URL, location: str) -> httpx.URL:
    import httpx

    try:
        following = _checked_url(url.join(location))
    except httpx.InvalidURL:
        raise _redirect_refused(location, "the address is not valid") from None
    except _UnreadableError as error:
        raise _redirect_refused(location, error) from error
    same_server = (following.scheme, following.raw_host, following.port) == (url.scheme, url.raw_host, url.port)
    return following.copy_with(userinfo=url.userinfo) if same_server and not following.userinfo else following


def _redirect_refused(location: str, reason: object) -> _UnreadableError:
    return _UnreadableError(f"it redirects to {_shown(location, address=True)}: {reason}")


def _request_headers(url: httpx.URL) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"Host", url.netloc),
        (b"User-Agent", b"qdrant-cir"),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"identity"),
    ]
    if url.userinfo:
        credentials = f"{unquote(url.username)}:{unquote(url.password)}".encode()
        headers.append((b"Authorization", b"Basic " + base64.b64encode(credentials)))
    return headers


def _shown(text: str, *, address: bool) -> str:
    """Return a value as messages show it: on one line, not too long; passwords and signatures of addresses masked."""
    shown = _on_one_line(text.strip()[:_MASKED])
    if address:
        shown = _masked(shown)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _on_one_line(text: str) -> str:
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return _shown(lines[0].rstrip("."), address=True) if lines else type(error).__name__


def _masked(text: str) -> str:
    """Mask what stands before the hosts, and the query's fields whose names sound secret."""
    # An Azure address begins with its container, which is no secret.
    if not _is_container(text):
        head, *rests = text.split("://")
        text = head if rests else _UNSLASHED_USERINFO.sub(r"\1***@", head)
        while rests:
            rest = "://".join(rests)
            end = _userinfo_end(rest)
            if end:
                rests = rest[end:].split("://")
                rests[0] = f"***@{rests[0]}"
            text += f"://{rests.pop(0)}"
    return _FIELD.sub(lambda field: f"{field[1]}{field[2]}=***" if _SECRET_NAMES.search(field[2]) else field[0], text)


def _userinfo_end(rest: str) -> int:
    """Return where the host begins in what follows "://": behind the userinfo, 0 where there is none."""
    found = _AUTHORITY.match(rest)
    authority = found[0] if found else ""
    if "@" in authority:
        return authority.rindex("@") + 1
    # A password with an unescaped "/", "?" or "#": what stands before it looks like a port, and is none.
    port = authority.partition(":")[2]
    is_torn = bool(port) and not port.isdigit() and not authority.startswith("[")
    return rest.rfind("@") + 1 if is_torn else 0


def _is_container(text: str) -> bool:
    scheme, slashes, rest = text.partition("://")
    return bool(slashes) and scheme in {"az", "abfs", "abfss"} and bool(_CONTAINER.fullmatch(rest.partition("/")[0]))
