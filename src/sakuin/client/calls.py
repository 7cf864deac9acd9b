"""One request to a server, and what it answers, or why it does not. Called by the rest of `sakuin.client`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sakuin.errors import SakuinError

if TYPE_CHECKING:
    import httpx

_CONNECT_S = 10.0


class ServerError(SakuinError):
    """What a server refuses, in its words.

    status : of HTTP; 0 where no answer came. code, param : as the server gives them, or None. error : all
    that it says of it.
    """

    def __init__(self, message: str, status: int = 0, error: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.error = status, dict(error or {})
        self.code: str | None = self.error.get("code")
        self.param: str | None = self.error.get("param")


class Calls:
    """A connection to the server at `base_url`, with or without a key.

    timeout : seconds that the server may be silent. transport : for tests, in the place of the network.
    """

    def __init__(self, base_url: str, api_key: str | None, timeout: float, transport: Any = None) -> None:
        try:
            import httpx
        except ImportError:
            raise SakuinError("the client needs httpx: pip install 'sakuin[server]'.") from None
        base = base_url.rstrip("/").removesuffix("/v1")
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        try:
            self._http = httpx.Client(
                base_url=base,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=_CONNECT_S),
                transport=transport,
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise SakuinError(
                f"{base_url!r:.100} is no address, or the key holds odd letters: {error}."
            ) from None
        self._base, self._httpx = base, httpx

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """What the server answers."""
        with self._sent():
            response = self._http.request(method, path, **more)
            self._check(response)
            found: dict[str, Any] = response.json()
            return found

    def events(self, method: str, path: str, **more: Any) -> Iterator[dict[str, Any]]:
        """What the server says, piece by piece (SSE); ends with the stream, or with `[DONE]`."""
        with self._sent(), self._http.stream(method, path, **more) as response:
            if response.is_error:
                response.read()
            self._check(response)
            data: list[str] = []
            for line in response.iter_lines():
                if line.startswith("data:"):
                    data.append(line.removeprefix("data:").removeprefix(" "))
                elif not line and data:
                    said, data = "\n".join(data), []
                    if said == "[DONE]":
                        return
                    event = json.loads(said)
                    if isinstance(event, dict) and isinstance(event.get("error"), dict) and len(event) == 1:
                        raise _refused(response.status_code, event["error"])
                    yield event

    @contextmanager
    def _sent(self) -> Iterator[None]:
        """Within, what goes wrong on the way is said in a sentence."""
        httpx = self._httpx
        try:
            yield
        except httpx.TimeoutException:
            raise ServerError(f"the server at {self._base} was silent for too long; try again.") from None
        except (httpx.HTTPError, httpx.UnsupportedProtocol) as error:
            raise ServerError(
                f"the server at {self._base} cannot be reached ({error}); start it by `sakuin serve`, or "
                "check the address."
            ) from None
        except json.JSONDecodeError:
            raise ServerError(
                f"what answers at {self._base} is no sakuin server; check the address."
            ) from None

    def _check(self, response: httpx.Response) -> None:
        if not response.is_error:
            return
        try:
            error = response.json()["error"]
            error["message"]
        except (ValueError, KeyError, TypeError):
            said = f"the server at {self._base} answers {response.status_code}; check the address."
            raise ServerError(said, response.status_code) from None
        raise _refused(response.status_code, error)


def _refused(status: int, error: Mapping[str, Any]) -> ServerError:
    return ServerError(str(error["message"]), status, error)
