"""One HTTP request to a destination, with an end to the time and the memory that its answer takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from dicom_out.cutoff import Cutoff
from dicom_out.settings import SLOWEST_LINK, StowSettings

_LARGEST_ANSWER = 16 << 20
_BLOCK = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the destination said; without a body where that was too large to be an answer."""

    status: int
    media_type: str
    content: bytes


class Exchange:
    """A session with a destination's certificates and credentials; used by one thread."""

    def __init__(self, settings: StowSettings) -> None:
        self._settings = settings
        self._cutoff = Cutoff()
        self._session = requests.Session()
        # Otherwise a .netrc would replace the configured credentials
        self._session.trust_env = False
        self._session.verify = str(settings.ca_file) if settings.ca_file else True
        if settings.token:
            self._session.headers["Authorization"] = f"Bearer {settings.token}"
        elif settings.username:
            self._session.auth = (settings.username, settings.password)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Watched(self))

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def connected(self, connection: HTTPConnection) -> None:
        """Note the connection that the request goes over."""
        if connection.sock is not None:
            self._cutoff.watch(connection.sock)

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: Iterable[bytes] | None = None,
        size: int = 0,
    ) -> Answer:
        """Send a request with ``size`` bytes of body; return the answer.

        Raises
        ------
        requests.RequestException
            There is none, or it did not end in time.
        """
        settings = self._settings
        with self._cutoff.after(2 * settings.timeout_s + size / SLOWEST_LINK):
            response = self._session.request(
                method,
                f"{settings.url.rstrip('/')}/{path}",
                params=params,
                data=body,
                headers={"Accept": "application/dicom+json", **headers, **settings.headers},
                timeout=settings.timeout_s,
                # A followed redirection becomes a GET, whose 200 would look like success
                allow_redirects=False,
                stream=True,
            )
            with response:
                content = _content(response)
        return Answer(
            status=response.status_code, media_type=response.headers.get("Content-Type", ""), content=content
        )


def _content(response: requests.Response) -> bytes:
    content = bytearray()
    for block in response.iter_content(_BLOCK):
        content += block
        if len(content) > _LARGEST_ANSWER:
            return b""
    return bytes(content)


class _Watched(HTTPAdapter):
    """Tells an ``Exchange`` of each connection that is made for it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        told = self._exchange.connected

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                told(self)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                told(self)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
