"""Libraries that write to the terminal by themselves are told not to: only the command line speaks there.

Named messages and progress bars only; every other warning, and every error, stays.
"""

from __future__ import annotations

import logging
import warnings
from functools import partial
from typing import Any

#: Said by libraries of one another, and nothing that a user can act on: an optional kernel that is not needed here, and
#: 4-bit weights that are unpacked because we ask for it.
_SAID_OFTEN = ("Failed to load CPU gemm_4bit_forward", "The modules are dequantized in")
_SPEAKERS = ("bitsandbytes.backends.cpu.ops", "transformers.integrations.bitsandbytes")


def silence_transformers() -> None:
    """No progress bars while weights are loaded, converted or written, and none of the messages above."""
    from transformers import modeling_gguf_pytorch_utils as conversion
    from transformers.utils import logging as its_logging

    its_logging.disable_progress_bar()
    # The one bar that does not go through transformers' own switch.
    conversion.tqdm = partial(conversion.tqdm, disable=True)
    for name in _SPEAKERS:
        speaker = logging.getLogger(name)
        if _wanted not in speaker.filters:
            speaker.addFilter(_wanted)
    # TRL and PEFT use the old name of a setting of transformers.
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing` is deprecated", FutureWarning)


def silence_llamacpp() -> None:
    """Drop llama.cpp's log lines; what fails is raised."""
    import llama_cpp

    llama_cpp.llama_log_set(_nothing(), None)


def _wanted(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_SAID_OFTEN)


def _nothing() -> Any:
    global _CALLBACK
    import llama_cpp

    if _CALLBACK is None:
        _CALLBACK = llama_cpp.llama_log_callback(lambda *_: None)
    return _CALLBACK


_CALLBACK: Any = None
