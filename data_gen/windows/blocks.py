"""Blocks of data, made on a thread one ahead of what is asked for."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Block = TypeVar("Block")


class Blocks(Generic[Block]):
    """Blocks by their number; any may be asked for, and going forward is what is fast."""

    def __init__(self, make: Callable[[int], Block], name: str) -> None:
        """Prepares a thread; nothing is made before the first block is asked for.

        Args:
          make: makes a block of its number alone.
          name: of the thread.
        """
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._blocks: dict[int, Future[Block]] = {}

    def __getitem__(self, number: int) -> Block:
        """A block; the next one is begun, and what is neither is let go.

        Raises whatever making it raises.
        """
        wanted = (number, number + 1)
        for block in wanted:
            if block not in self._blocks:
                self._blocks[block] = self._thread.submit(self._make, block)
        for old in [block for block in self._blocks if block not in wanted]:
            self._blocks.pop(old).cancel()
        return self._blocks[number].result()

    def close(self) -> None:
        """Stops the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
