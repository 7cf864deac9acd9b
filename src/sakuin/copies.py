"""What it means to copy an object that forks: a fork, and no file.

`copy.copy` and `copy.deepcopy` would otherwise share or take apart what must stay whole (locks, threads,
native memory), and pickling would fail on the first of these, without a word on what to do instead.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class CopiedByFork:
    """Copies of such an object are its forks; pickling it is refused.

    _instead : what to do instead of pickling, the rest of a sentence.
    """

    _instead: ClassVar[str]

    @abstractmethod
    def fork(self) -> Any:
        """A second one that holds the same and goes its own way."""

    def __copy__(self) -> Any:
        return self.fork()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self)] = other = self.fork()
        return other

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise unpicklable(self, self._instead)


def twin(one: T) -> T:
    """A second object with the same attributes, for `fork` to part from the first: `copy.copy` would fork."""
    other = type(one).__new__(type(one))
    vars(other).update(vars(one))
    return other


def unpicklable(one: object, instead: str) -> TypeError:
    """The error of pickling what lies in part outside of Python."""
    return TypeError(
        f"a {type(one).__name__} cannot be pickled (nor saved by torch.save, nor sent to another process): "
        f"{instead}"
    )
