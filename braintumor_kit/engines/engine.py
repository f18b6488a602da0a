"""What an engine is, and what it is given to do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from braintumor_kit.engines.together import JointWork, Tell

Task = TypeVar("Task")
Result = TypeVar("Result")

ATTEMPTS = 3
"""So often one task is begun before those that lose the processes under it are taken for its fault."""


class Work(ABC, Generic[Task, Result]):
    """What is done for each task, in whichever process.

    It is sent to other processes pickled, so its fields are plain values and it is hashable; what it opens there, such
    as a model, is kept for the tasks that follow. A task may be begun again after the process at it was lost: what is
    done already has to be found by what it left, and give the same result at once.
    """

    @abstractmethod
    def open(self) -> Callable[[Task], Result]:
        """Makes ready, once a process, and gives what does a task."""

    def name(self, task: Task) -> str:
        """A task, as the user is told of it."""
        return str(task)


class Engine(Protocol):
    """Does tasks.

    Attributes:
        slots: tasks at a time.
    """

    @property
    def slots(self) -> int: ...

    def each(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Tasks and what came of them, as they are done.

        Raises:
            BtkitError: what the work raises, as it raised it.
            WorkError: where a task cannot be done because the processes at it are lost again and again.
        """

    def together(self, work: JointWork, workers: int, hear: Tell) -> None:
        """Has several processes do one piece of work together.

        Args:
            hear: is given what they tell.

        Raises:
            BtkitError: what one of them raises.
            WorkError: where one of them is lost. The others are ended.
        """
