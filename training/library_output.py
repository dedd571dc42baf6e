"""Keep libraries from writing to the terminal: only the command line does.

Named messages and progress bars only; every other warning, and every error, stays.
"""

from __future__ import annotations

import logging
import warnings
from functools import partial
from typing import Any

#: Messages that a user can do nothing about: an optional kernel that is not needed here, and 4-bit weights that are
#: unpacked because we ask for it.
_USELESS_MESSAGES = ("Failed to load CPU gemm_4bit_forward", "The modules are dequantized in")
_LOGGERS = ("bitsandbytes.backends.cpu.ops", "transformers.integrations.bitsandbytes")


#: The callback has to live as long as llama.cpp may call it.
_IGNORE: Any = None


def silence_transformers() -> None:
    """No progress bars while weights are loaded, converted or written, and none of the messages above."""
    from transformers import modeling_gguf_pytorch_utils as conversion
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # The one bar that does not go through transformers' own switch.
    conversion.tqdm = partial(conversion.tqdm, disable=True)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _is_useful not in logger.filters:
            logger.addFilter(_is_useful)
    # TRL and PEFT use the old name of a setting of transformers.
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing` is deprecated", FutureWarning)


def silence_llamacpp() -> None:
    """Drop llama.cpp's log lines; what fails is raised."""
    global _IGNORE
    import llama_cpp

    if _IGNORE is None:
        _IGNORE = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(_IGNORE, None)


def _is_useful(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_USELESS_MESSAGES)
