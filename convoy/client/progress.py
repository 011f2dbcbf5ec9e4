"""Progress bars on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """A bar of `total` steps when `shown`. Yields a function to call once per step."""
    with steps_bar(shown) as report:
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            report("images", done, total)

        report("images", 0, total)
        yield advance


@contextmanager
def steps_bar(shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    """One bar per step of a longer job when `shown`. Yields a function that takes (step, done, total)."""
    if not shown:
        yield lambda step, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=total)
            progress.update(tasks[step], completed=done, total=total)

        yield report
