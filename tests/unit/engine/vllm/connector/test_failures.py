"""What is remembered of failures."""

import errno

import pytest

from mooring.engine.vllm.connector.failures import Failures
from mooring.engine.vllm.connector.messages import Code, Problem
from mooring.engine.vllm.connector.problems import problem_of
from mooring.kvstore.codec import Rejected, Rejection

FULL = Problem(Code.STORAGE_FULL, "full")


def test_only_the_last_hundred_are_told():
    failures = Failures()
    for number in range(150):
        failures.add(str(number), FULL)
    assert list(failures.as_json()) == [str(number) for number in range(50, 150)]


def test_only_failures_of_storage_concern_a_save():
    failures = Failures()
    failures.add("a", FULL)
    failures.add("b", Problem(Code.UNKNOWN, "gone"))
    assert (failures.of_storage("a"), failures.of_storage("b"), failures.of_storage("c")) == (
        FULL,
        None,
        None,
    )


def test_context_that_was_saved_is_broken_no_more():
    failures = Failures()
    failures.add_broken("a", Problem(Code.DAMAGED, "a flipped bit"))
    assert failures.is_broken("a")
    failures.clear("a")
    assert not failures.is_broken("a")
    assert failures.as_json() == {}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "full"), Code.STORAGE_FULL),
        (OSError(errno.EDQUOT, "quota"), Code.STORAGE_FULL),
        (OSError(errno.EIO, "broken"), Code.STORAGE),
        (Rejected(Rejection.CORRUPT), Code.DAMAGED),
        (Rejected(Rejection.TRUNCATED), Code.DAMAGED),
        (Rejected(Rejection.FOREIGN), Code.DAMAGED),
        (Rejected(Rejection.MISSING), Code.UNKNOWN),
        (Rejected(Rejection.UNREADABLE), Code.STORAGE),
    ],
    ids=str,
)
def test_errors_of_the_tier_have_codes(error, code):
    assert problem_of(error).code is code
