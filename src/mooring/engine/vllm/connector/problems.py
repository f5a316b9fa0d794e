"""Errors of the shared tier as problems that a report can name."""

import errno

from mooring.engine.vllm.connector.messages import Code, Problem
from mooring.kvstore.codec import Rejected, Rejection

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def problem_of(error: OSError | Rejected) -> Problem:
    if isinstance(error, OSError):
        code = Code.STORAGE_FULL if error.errno in _FULL else Code.STORAGE
        return Problem(code, str(error))
    match error.reason:
        case Rejection.UNREADABLE:
            return Problem(Code.STORAGE, "the shared tier cannot be read")
        case Rejection.MISSING:
            return Problem(Code.UNKNOWN, "a part of it is not in the shared tier any more")
        case reason:
            return Problem(Code.DAMAGED, f"stored bytes are {reason.value}")
