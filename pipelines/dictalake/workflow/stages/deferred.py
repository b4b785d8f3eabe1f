"""What an actor opens once: a model, an engine, a decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from dictalake.errors import ConfigError

Resource = TypeVar("Resource")


class DeferredResource(Generic[Resource]):
    """What an actor opens once. A ConfigError waits for the first block: of what a constructor raises, Ray passes on the
    text of the traceback alone.
    """

    def __init__(self, open_it: Callable[[], Resource]) -> None:
        self._resource: Resource | None = None
        self._refusal: ConfigError | None = None
        try:
            self._resource = open_it()
        except ConfigError as error:
            self._refusal = error

    def get(self) -> Resource:
        if self._resource is None:
            assert self._refusal is not None
            raise self._refusal
        return self._resource
