"""What the system refuses: characters that an output cannot encode, a full disk, a path that cannot be written."""

from __future__ import annotations

import errno
import io
import sys

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXT = "No space left on device"


def replace_unencodable_output() -> None:
    """Let standard output and standard error write a question mark for what their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def system_message(fault: OSError) -> str | None:
    """One sentence for a fault that the user can mend; None for any other."""
    if fault.errno in _FULL or _FULL_TEXT in str(fault):
        where = f" while writing {fault.filename}" if fault.filename else ""
        return f"the disk is full{where}. Free some space and run the same command again; it continues."
    if fault.errno == errno.EFBIG:
        return f"a file would be larger than the system allows: {fault.strerror}. Raise the limit (ulimit -f)."
    if fault.errno == errno.EROFS:
        where = fault.filename or "The folder that is written to"
        return f"{where} lies on a disk that cannot be written. Give another path, or mount it for writing."
    if isinstance(fault, (NotADirectoryError, PermissionError, FileExistsError)) and fault.filename:
        return f"{fault.filename} cannot be used: {fault.strerror}. Give another path, or change what is there."
    return None
