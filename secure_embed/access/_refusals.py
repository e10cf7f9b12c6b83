"""How a token's fault travels inside the room; :class:`Authenticator` turns it into ``Unauthenticated``."""

__all__ = ["TokenRefused"]


class TokenRefused(Exception):
    """``code`` is stable; ``detail`` is a fixed sentence and never holds a part of the token.

    ``error`` is the code of RFC 6750 section 3.1, or None where that section wants none.
    """

    def __init__(self, code: str, detail: str, *, error: str | None = "invalid_token", status: int = 401) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.error = error
        self.status = status
