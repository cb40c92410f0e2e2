"""What a way to Triton can do: both transports give the same tensors and raise the same errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from app.providers.triton_tensors import Tensor

Outputs = dict[str, list[Any]]  # values by the output's name; texts as bytes


class Answers(ABC):
    """What one request gives, answer by answer. Iterating raises `UpstreamError` where it failed or was cut."""

    @abstractmethod
    def come(self, keep_alive_s: float | None) -> Iterator[Outputs | None]:
        """The answers, and None after so many seconds in which nothing came, again and again."""

    def __iter__(self) -> Iterator[Outputs]:
        """The answers alone."""
        return (answer for answer in self.come(None) if answer is not None)

    @abstractmethod
    def close(self) -> None:
        """Stop the model, unless it has ended."""


class Transport(ABC):
    """A way to one server. Each method raises `UpstreamError`; `version` is "" for the model's own choice."""

    cancels: ClassVar[bool]  # whether a model is stopped at any time, or only when it gives the next piece

    @abstractmethod
    def infer(self, model: str, version: str, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The one answer of a model that is not decoupled."""

    @abstractmethod
    def generate(self, model: str, version: str, inputs: Sequence[Tensor], *, stream: bool) -> Answers:
        """The answers of a model that writes; one, unless it is a stream."""

    @abstractmethod
    def config(self, model: str, version: str) -> Any:
        """The model's own config, as Triton writes it in JSON."""

    @abstractmethod
    def index(self) -> Any:
        """The models of the repository: a list of objects with `name`, `version`, `state` and `reason`."""

    @abstractmethod
    def is_ready(self, model: str | None = None) -> bool:
        """Whether the server takes requests, or one of its models does."""

    @abstractmethod
    def statistics(self, model: str = "") -> Any:
        """How often and how long models ran and waited: the list that Triton calls `model_stats`."""

    @abstractmethod
    def close(self) -> None:
        """Give back connections."""
