"""Errors of the shared tier as problems that a report can name."""

import errno

from mooring.engine.vllm.connector.messages import Code, Problem
from mooring.kvstore.codec import Rejected, Rejection

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def problem_of(error: BaseException) -> Problem:
    if not isinstance(error, Rejected):
        full = isinstance(error, OSError) and error.errno in _FULL
        return Problem(Code.STORAGE_FULL if full else Code.STORAGE, str(error) or repr(error))
    match error.reason:
        case Rejection.UNREADABLE:
            return Problem(Code.STORAGE, "the shared tier cannot be read")
        case Rejection.MISSING:
            return Problem(Code.UNKNOWN, "a part of it is not in the shared tier any more")
        case reason:
            return Problem(Code.DAMAGED, f"stored bytes are {reason.value}")
