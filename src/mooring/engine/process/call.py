"""A call that the engine's process has been asked and has not answered to the end."""

import asyncio

from mooring.core.errors import MooringError
from mooring.engine.process.messages import Answer


class ChildEnded(Exception):
    """The process ended with the call in it; `str(error)` says how."""


class Call:
    """What has been answered and not been read yet.

    A slow reader holds nobody back, here as little as in the engine itself: what waits for it is at most
    the rest of the answer, which `max_tokens` bounds.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.mail: asyncio.Queue[Answer | ChildEnded] = asyncio.Queue()

    async def next(self) -> Answer:
        """Wait for more of the answer.

        Raises:
            MooringError: the engine's.
            ChildEnded: there is no more, as its process has ended.
        """
        answer = await self.mail.get()
        if isinstance(answer, MooringError | ChildEnded):
            raise answer
        return answer
