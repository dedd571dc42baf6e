"""What the system refuses: characters that an output cannot encode, a full disk, a path that cannot be written."""

from __future__ import annotations

import errno
import io
import sys

_FULL = (errno.ENOSPC, errno.EDQUOT)
#: As polars and SQLite say it, whose faults can be of types of their own.
_FULL_TEXTS = ("No space left on device", "database or disk is full")


def replace_unencodable_output() -> None:
    """Let standard output and standard error write a question mark for what their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def system_message(fault: Exception) -> str | None:
    """One sentence for a fault that the user can mend; None for any other."""
    if getattr(fault, "errno", None) in _FULL or any(text in str(fault) for text in _FULL_TEXTS):
        where = f" while writing {fault.filename}" if isinstance(fault, OSError) and fault.filename else ""
        return f"the disk is full{where}. Free some space and run the same command again; it continues."
    if not isinstance(fault, OSError):
        return None
    if fault.errno == errno.EFBIG:
        return f"a file would be larger than the system allows: {fault.strerror}. Raise the limit (ulimit -f)."
    if fault.errno == errno.EROFS:
        where = fault.filename or "The folder that is written to"
        return f"{where} lies on a disk that cannot be written. Give another path, or mount it for writing."
    if isinstance(fault, (NotADirectoryError, PermissionError, FileExistsError)) and fault.filename:
        return f"{fault.filename} cannot be used: {fault.strerror}. Give another path, or change what is there."
    return None
