"""How long-running work reports its progress."""

from collections.abc import Callable

#: Called with a label, how much is done, and how much there is in all.
Progress = Callable[[str, int, int], None]
