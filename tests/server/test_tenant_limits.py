"""Limits of a tenant: so many requests in any minute, so many at once, and nobody pays for another."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from sakuin.server.problems import Problem
from sakuin.server.tenants.limits import TenantLimits
from sakuin.server.tenants.tenant import Allowed, Tenant

ONE, TWO = Tenant("ann", Allowed(requests_per_minute=3)), Tenant("bob", Allowed(requests_per_minute=3))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ask(limits: TenantLimits, tenant: Tenant) -> Problem | None:
    try:
        with limits.enter(tenant):
            return None
    except Problem as problem:
        return problem


def test_no_minute_has_more_than_it_may() -> None:
    clock = Clock()
    limits = TenantLimits(clock)
    begun = []
    for _ in range(600):  # a client that asks each half a second
        if ask(limits, ONE) is None:
            begun.append(clock.now)
        clock.now += 0.5
    assert len(begun) == 15
    assert all(later - sooner >= 60 for sooner, later in zip(begun, begun[3:], strict=False))


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    clock = Clock()
    limits = TenantLimits(clock)
    for _ in range(3):
        assert ask(limits, ONE) is None
        clock.now += 10
    problem = ask(limits, ONE)
    assert problem is not None
    assert (problem.status, problem.code) == (429, "rate_limit_exceeded")
    assert problem.headers == {"Retry-After": "30"}
    assert str(problem) == "This key may ask 3 times a minute, and has: ask again in 30 s."
    assert ask(limits, TWO) is None  # another's is another's
    clock.now += 29.5
    again = ask(limits, ONE)
    assert again is not None
    assert again.headers == {"Retry-After": "1"}
    clock.now += 0.5
    assert ask(limits, ONE) is None


def test_a_limit_that_was_lowered_says_the_right_time() -> None:
    clock = Clock()
    limits = TenantLimits(clock)
    for _ in range(3):
        ask(limits, ONE)
        clock.now += 10
    problem = ask(limits, Tenant("ann", Allowed(requests_per_minute=1)))
    assert problem is not None
    assert problem.headers == {"Retry-After": "50"}
    clock.now += 50
    assert ask(limits, Tenant("ann", Allowed(requests_per_minute=1))) is None


def test_as_many_run_at_once_as_may() -> None:
    limits, tenant = TenantLimits(), Tenant("ann", Allowed(requests_per_minute=5, concurrent=2))
    with ExitStack() as running:
        for _ in range(2):
            running.enter_context(limits.enter(tenant))
        problem = ask(limits, tenant)
        assert problem is not None
        assert (problem.status, problem.code) == (429, "too_many_at_once")
        assert problem.headers == {"Retry-After": "1"}
        assert ask(limits, Tenant("bob", Allowed(concurrent=2))) is None
    for _ in range(3):  # the refused one was not counted
        assert ask(limits, tenant) is None
    last = ask(limits, tenant)
    assert last is not None
    assert last.code == "rate_limit_exceeded"


def test_who_looks_is_counted_apart_and_may_do_so_tenfold() -> None:
    clock = Clock()
    limits, tenant = TenantLimits(clock), Tenant("ann", Allowed(requests_per_minute=2, concurrent=1))
    with ExitStack() as looking:
        for _ in range(10):
            looking.enter_context(limits.enter(tenant, looks=True))
        with pytest.raises(Problem, match="This key may look 10 at once, and that many are running"):
            looking.enter_context(limits.enter(tenant, looks=True))
        assert ask(limits, tenant) is None
    for _ in range(10):
        with limits.enter(tenant, looks=True):
            pass
    with pytest.raises(Problem, match="may look 20 times a minute, and has: look again in 60 s"):
        limits.enter(tenant, looks=True).__enter__()
    assert ask(limits, tenant) is None  # looking costs no question
    assert limits._running == {}


def test_what_fails_has_ended_too() -> None:
    limits, tenant = TenantLimits(), Tenant("ann", Allowed(concurrent=1))
    with pytest.raises(RuntimeError), limits.enter(tenant):
        raise RuntimeError
    assert ask(limits, tenant) is None
    assert limits._running == {}


def test_many_threads_never_run_more_than_may() -> None:
    limits, tenant = TenantLimits(), Tenant("ann", Allowed(concurrent=3))
    start, leave = threading.Barrier(16), threading.Barrier(16)
    said: list[bool] = []

    def come() -> None:
        start.wait()
        with ExitStack() as running:
            try:
                running.enter_context(limits.enter(tenant))
                said.append(True)
            except Problem:
                said.append(False)
            leave.wait()

    threads = [threading.Thread(target=come) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [False] * 13 + [True] * 3
    assert limits._running == {}


def test_without_limits_nothing_is_remembered() -> None:
    limits = TenantLimits()
    for _ in range(100):
        assert ask(limits, Tenant("ann")) is None
    assert limits._begun == {}
