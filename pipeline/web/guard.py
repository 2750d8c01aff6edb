"""Who may ask the local server: this machine's browser under the server's own name, and with the token for changes.

Pages of other sites can make a browser send requests to 127.0.0.1, and a name that they own can point there. So the
Host must be ours, an Origin must be ours where one is sent and must be sent with every change, and a change needs the
token that stands in the address which `evergreen ui` prints.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Checks requests.

    Args:
      port: where the server listens.
      token: the secret of this start; drawn by default.

    Attributes:
      token: the secret.
      cookie: the name of the cookie that carries it; cookies are shared by all ports of a host.
    """

    def __init__(self, port: int, token: str | None = None):
        self.token = token or secrets.token_urlsafe(24)
        self.cookie = f"evergreen-{port}"
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        if port == 80:
            self._hosts |= {"127.0.0.1", "localhost"}

    def refusal(self, method: str, host: str | None, origin: str | None, site: str | None = None) -> str:
        """Says why a request is refused.

        Args:
          method: such as `GET`.
          host: the header Host.
          origin: the header Origin; None where there is none.
          site: the header Sec-Fetch-Site; None where there is none.

        Returns:
          The reason; empty where the request may pass.
        """
        if host not in self._hosts:
            return "the request names another host"
        if origin is not None and origin not in {f"http://{name}" for name in self._hosts}:
            return "the request comes from another site"
        if method not in ("GET", "HEAD") and (origin is None or origin != f"http://{host}"):
            return "the request does not come from these pages"
        if method not in ("GET", "HEAD") and site not in (None, "same-origin"):
            return "the request does not come from these pages"
        return ""

    def knows(self, token: str | None) -> bool:
        """Says whether a token is ours."""
        return token is not None and hmac.compare_digest(token.encode(), self.token.encode())

    def form_token(self, action: str) -> str:
        """Returns what a form must send back: bound to one action, so that it confirms that one and no other.

        Args:
          action: what is done, such as `rollback 17 from 18`.
        """
        return hmac.new(self.token.encode(), action.encode(), hashlib.sha256).hexdigest()

    def confirms(self, action: str, sent: str) -> bool:
        """Says whether a form's token confirms an action."""
        return hmac.compare_digest(self.form_token(action).encode(), sent.encode())
