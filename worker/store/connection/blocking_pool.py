"""A bounded pool that gets every connection back, also from a task that is cancelled while it returns one."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import BlockingConnectionPool


class BlockingPool(BlockingConnectionPool):  # type: ignore[misc]  # redis-py is not typed
    """A pool in which a task waits for a connection that another one has."""

    async def release(self, connection: Any) -> None:
        """Take a connection back. A cancellation meanwhile is raised once it is back."""
        try:
            await super().release(connection)
        except asyncio.CancelledError:
            if connection in self._in_use_connections:  # without this the pool would be smaller by one for ever
                self._in_use_connections.remove(connection)
                self._available_connections.append(connection)
            raise
