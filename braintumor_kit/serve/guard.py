"""Who may ask, and what every answer is sent with.

A page of anyone's that a browser shows can send requests to this machine too. So the Host has to be one that this
server is called by (or a name under an attacker's control could lead here), an Origin has to be the server's own, and
beyond loopback a token is needed.
"""

import hmac
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "btkit_token"

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound there."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # another name, such as 127.0.0.1.example.org
        return False


class Guard:
    """Lets requests through that may ask, and puts the headers on every answer.

    Args:
        app: what answers them.
        host: that the server is bound to.
        token: that is asked for; None for none, on loopback alone.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        if token is None and not is_loopback(host):
            raise ValueError("beyond loopback a token is needed")
        self._app, self._host, self._token = app, host, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        refused = self._refused(scope["method"], headers)
        if refused is None and self._token is not None and not self._knows_token(headers):
            if self._is_token(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]):
                welcome = RedirectResponse("/", status_code=303)
                welcome.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
                await welcome(scope, receive, with_headers)
                return
            refused = 401, "this server asks for its token: open the address that it printed when it began."
        if refused is not None:
            close = {"connection": "close"}  # what is still on its way is not read
            await JSONResponse({"error": refused[1]}, refused[0], close)(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)

    def _refused(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Status and reason where a request may not ask."""
        host = headers.get("host", "")
        if is_loopback(self._host) and not is_loopback(_name(host)):
            return 421, "this server is called localhost or 127.0.0.1; nothing else leads to it."
        origin = headers.get("origin")
        foreign = origin is not None and (urlsplit(origin).netloc if _is_url(origin) else origin) != host
        if foreign or (method not in ("GET", "HEAD") and headers.get("sec-fetch-site") == "cross-site"):
            return 403, "the request comes from another site's page."
        return None

    def _knows_token(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(given.strip()):
            return True
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return False
        return COOKIE in cookies and self._is_token(cookies[COOKIE].value)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())


def _name(host: str) -> str:
    """The name of a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_url(text: str) -> bool:
    try:
        return bool(urlsplit(text).netloc)
    except ValueError:
        return False
