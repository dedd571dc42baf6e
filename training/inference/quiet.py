"""Libraries that write to the terminal by themselves are told not to: only the command line speaks there."""

from __future__ import annotations

from typing import Any


def silence_transformers() -> None:
    """No progress bars while weights are loaded or written; warnings stay."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def silence_llama() -> None:
    """Drop llama.cpp's log lines; what fails is raised."""
    import llama_cpp

    llama_cpp.llama_log_set(_nothing(), None)


def _nothing() -> Any:
    global _CALLBACK
    import llama_cpp

    if _CALLBACK is None:
        _CALLBACK = llama_cpp.llama_log_callback(lambda *_: None)
    return _CALLBACK


_CALLBACK: Any = None
