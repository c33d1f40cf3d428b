"""What a client is told when a request cannot be met."""

from __future__ import annotations


class RefusedError(Exception):
    """A request that cannot be met, through no fault of the program.

    Attributes:
        status: of the HTTP response.
        code: for programs.
        message: for people; it is sent to the client.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
