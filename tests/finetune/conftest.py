"""Models this small are slower on two threads than on one."""

from tests.training.conftest import one_thread

__all__ = ["one_thread"]
