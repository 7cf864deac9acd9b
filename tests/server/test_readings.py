"""What was acknowledged is read, whatever happens to the server in between, and nothing of it twice."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from contexts_app import Held
from stored import CONFIG, MORE, TEXT, counted, model_of, said

from sakuin import Context, Library
from sakuin.context.generate import Pass, Passes
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.server.contexts.described import Described
from sakuin.server.contexts.job import Job
from sakuin.server.contexts.spool import Place, Spool, Spooled, Wish
from sakuin.server.problems import Problem
from sakuin.server.scheduler import Closed, Limits
from sakuin.server.tenants.tenant import Tenant

ANYONE = Tenant()
LONG = TEXT + TEXT.replace("quick", "slow")  # some 3,000 tokens


def until(true: Callable[[], bool]) -> None:
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


def upload(held: Held, name: str, text: str, kind: Any = "add", tenant: str = "", **how: Any) -> Job:
    """An upload that is acknowledged."""
    place = held.readings.place(Tenant(tenant))
    with place.writing("0") as file:
        file.write(text.encode())
    is_text = how.pop("is_text", True)
    files = (Spooled("0", "text" if is_text else "a.txt", len(text.encode()), is_text),)
    return held.readings.take(Wish(kind, tenant, name, files, time.time(), **how), place)


def spooled(root: Path) -> list[Path]:
    """Uploads that lie in the spool."""
    return [path for path in (root / "spool").glob("*/*") if path.is_dir()]


@contextmanager
def slow(seconds: float) -> Iterator[None]:
    """Each pass of the model takes longer."""
    hook = model_of()[0].register_forward_pre_hook(lambda *_: time.sleep(seconds))
    try:
        yield
    finally:
        hook.remove()


def test_a_server_that_ends_in_the_middle_goes_on_and_reads_nothing_twice(tmp_path: Path) -> None:
    with slow(0.05), Held(tmp_path) as held:
        job = upload(held, "long", LONG, pinned=True, system="Be brief.")
        until(lambda: job.tokens_done >= 1024)
        start = time.monotonic()
    assert time.monotonic() - start < 5  # it did not wait for the end
    library = Library(tmp_path)
    kept = library.kept_of("long")
    assert kept >= 512
    assert [entry.state for entry in library.entries()] == ["unfinished"]
    with counted(model_of()[0]) as seen, Held(tmp_path) as held:
        until(lambda: not held.readings.jobs("", "long"))
        said_of = Described(held.readings).one(ANYONE, "long")
    assert (said_of["status"], said_of["pinned"], said_of["system"]) == ("ready", True, "Be brief.")
    assert sum(seen) <= said_of["tokens"] - kept + 1
    assert spooled(tmp_path) == []
    expected = Context.from_documents(*model_of(), [Document("text", LONG)], CONFIG, system="Be brief.")
    assert said(library.open("long", *model_of()))[0] == said(expected)[0]


def test_what_waits_is_read_after_a_restart_in_order(tmp_path: Path) -> None:
    with slow(0.05), Held(tmp_path) as held:
        upload(held, "a", LONG)
        upload(held, "b", LONG[:300])
        upload(held, "a", MORE, "append")
        upload(held, "c", LONG[:200])
        held.readings.stop()
    assert len(spooled(tmp_path)) >= 2
    with Held(tmp_path) as held:
        until(lambda: held.readings.counts() == (0, 0))
    library = Library(tmp_path)
    texts = {name: [one.text for one in library.documents(name)] for name in ("a", "b", "c")}
    assert texts == {"a": [LONG + MORE], "b": [LONG[:300]], "c": [LONG[:200]]}


@pytest.mark.parametrize("kind", ["add", "append"])
def test_what_was_read_but_not_forgotten_is_not_read_again(kind: str, tmp_path: Path) -> None:
    """The server ended after the context was published and before the upload was removed."""
    copy = tmp_path / "copy"
    root = tmp_path / "library"
    with Held(root) as held:
        upload(held, "a", TEXT).over.wait(60)
    with slow(0.05), Held(root) as held:
        upload(held, "a" if kind == "append" else "b", MORE, kind)
        if kind == "append":  # what it was begun on is noted first
            until(lambda: any('"before":' + str(len(TEXT)) in record(path) for path in spooled(root)))
        shutil.copytree(root / "spool", copy)
        until(lambda: held.readings.counts() == (0, 0))
    shutil.rmtree(root / "spool")
    shutil.copytree(copy, root / "spool")
    assert len(spooled(root)) == 1
    with counted(model_of()[0]) as seen, Held(root) as held:
        until(lambda: held.readings.counts() == (0, 0))
    assert seen == []
    assert spooled(root) == []
    found = {entry.name for entry in Library(root).entries()}
    assert found == ({"a"} if kind == "append" else {"a", "b"})
    assert Library(root).documents("a")[0].text == (TEXT + MORE if kind == "append" else TEXT)


def record(path: Path) -> str:
    try:
        return (path / "record.json").read_text()
    except OSError:
        return ""


def test_what_was_never_acknowledged_is_swept_away(tmp_path: Path) -> None:
    with Held(tmp_path) as held:
        place = held.readings.place(ANYONE)
        with place.writing("0") as file:
            file.write(b"half of ")
        held.readings.spool.close()
    assert spooled(tmp_path) == [place.folder]
    with Held(tmp_path) as held:
        assert spooled(tmp_path) == []
        assert held.readings.counts() == (0, 0)
    assert Library(tmp_path).entries() == []


def test_a_damaged_record_stays_and_stops_nobody(tmp_path: Path) -> None:
    with slow(0.05), Held(tmp_path) as held:
        upload(held, "a", LONG)
        upload(held, "b", TEXT)
        held.readings.stop()
    damaged, *_ = [path for path in spooled(tmp_path) if '"name":"b"' in record(path)]
    (damaged / "record.json").write_text("{")
    with Held(tmp_path) as held:
        until(lambda: held.readings.counts() == (0, 0))
    assert [entry.name for entry in Library(tmp_path).entries()] == ["a"]
    assert [path.name for path in spooled(tmp_path)] == [damaged.name]


def test_a_failure_is_told_after_a_restart_too(tmp_path: Path) -> None:
    with Held(tmp_path) as held:
        upload(held, "far", LONG * 3).over.wait(60)
        before = Described(held.readings).one(ANYONE, "far")
    assert (before["status"], before["error"]["n_ctx"]) == ("failed", 4096)
    with Held(tmp_path) as held:
        assert Described(held.readings).one(ANYONE, "far") == before
        with pytest.raises(Problem, match="could not be read"):
            held.shelves.of(ANYONE).open("far")
        held.readings.remove(ANYONE, "far")
        assert held.readings.names("") == []
    assert spooled(tmp_path) == []


def test_what_was_to_be_appended_to_a_failure_fails_with_it(tmp_path: Path) -> None:
    with slow(0.2), Held(tmp_path) as held:
        for name in ("one", "two"):  # both threads have something to do
            upload(held, name, LONG)
        jobs = [upload(held, "far", LONG * 3), *(upload(held, "far", MORE, "append") for _ in range(2))]
        for job in jobs:
            assert job.over.wait(60)
            assert job.error is not None
            assert job.error.code == "context_length_exceeded"
        until(lambda: held.readings.counts() == (0, 0))
        with pytest.raises(Problem, match="no context 'none'"):
            upload(held, "none", MORE, "append")
        with pytest.raises(Problem, match="'far' could not be read"):
            upload(held, "far", MORE, "append")


def test_what_is_removed_while_it_is_taken_apart_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, take = threading.Event(), Place.bytes_of

    def when_it_is_gone(place: Place, one: Spooled) -> bytes:
        begun.set()
        until(lambda: not place.folder.exists())
        return take(place, one)

    monkeypatch.setattr(Place, "bytes_of", when_it_is_gone)
    with Held(tmp_path) as held:
        job = upload(held, "gone", TEXT)
        begun.wait(60)
        held.readings.remove(ANYONE, "gone")
        assert job.over.is_set()
        assert (held.readings.failed("", "gone"), job.error) == (None, None)
        assert held.readings.names("") == []
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []


def test_two_servers_on_one_library_share_no_upload(tmp_path: Path) -> None:
    with slow(0.05), Held(tmp_path) as one:
        job = upload(one, "a", LONG)
        assert Spool(tmp_path / "spool").taken() == []  # the first is alive
        one.readings.stop()
        job.over.wait(0.1)
    [(place, wish)] = Spool(tmp_path / "spool").taken()
    assert (wish.name, place.bytes_of(wish.files[0]).decode()) == ("a", LONG)


def test_one_tenants_uploads_do_not_keep_another_waiting(tmp_path: Path) -> None:
    over: list[str] = []
    with slow(0.02), Held(tmp_path) as held:
        many = [upload(held, f"m{i}", f"{i} {LONG[:900]}", tenant="many") for i in range(8)]
        few = upload(held, "f", LONG[:900], tenant="few")
        watching = [
            threading.Thread(target=lambda job=job: (job.over.wait(60), over.append(job.wish.name)))
            for job in [*many, few]
        ]
        for thread in watching:
            thread.start()
        for thread in watching:
            thread.join(60)
    assert over.index("f") <= 3


def upload_on(held: Held) -> None:
    """Until no more is taken."""
    for i in range(1000):
        upload(held, f"more{i}", TEXT[:300])


def test_so_many_may_wait_and_no_more(tmp_path: Path) -> None:
    with slow(0.1), Held(tmp_path) as held:
        for i in range(64):
            upload(held, f"c{i}", f"{i} {TEXT[:300]}")
        with pytest.raises(Problem, match="wait to be read already") as caught:
            upload_on(held)
        assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "10"})
        assert held.readings.place(Tenant("other"))  # somebody else may


def test_a_busy_scheduler_is_waited_for(tmp_path: Path) -> None:
    held = Held(tmp_path)
    held.scheduler.limits = Limits(running=1, waiting=1)
    gate = threading.Event()

    def holding() -> Passes[None]:
        cache = held.backend.new_cache(CONFIG)
        while not gate.is_set():
            yield Pass(cache, [5] * 20)
            cache = held.backend.new_cache(CONFIG)

    with held:
        running = held.scheduler.submit(holding())
        until(lambda: held.scheduler.counts() == (1, 0))
        waiting = held.scheduler.submit(holding())
        job = upload(held, "a", TEXT)
        assert not job.over.wait(1.5)
        assert job.error is None
        gate.set()
        running.future.result(60)
        waiting.future.result(60)
        assert job.over.wait(60)
        assert job.error is None
        assert said(held.shelves.of(ANYONE).open("a"))[0]


def test_one_that_another_process_reads_is_waited_for(tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.folder.make()
    with Held(tmp_path) as held:
        with library.folder.working_on("a"):
            job = upload(held, "a", TEXT)
            assert not job.over.wait(1.5)
        assert job.over.wait(60)
        assert job.error is None


def test_a_server_that_goes_down_takes_nothing_more(tmp_path: Path) -> None:
    with Held(tmp_path) as held:
        held.readings.stop()
        for call in (
            lambda: held.readings.place(ANYONE),
            lambda: held.readings.remove(ANYONE, "a"),
            lambda: upload(held, "a", TEXT),
        ):
            with pytest.raises(Closed):
                call()


def test_a_scheduler_that_is_closed_fails_no_upload(tmp_path: Path) -> None:
    with slow(0.05), Held(tmp_path) as held:
        job = upload(held, "a", LONG)
        until(lambda: job.tokens_done > 0)
        held.scheduler.close()
        until(lambda: held.readings.is_stopping or job.over.is_set())
    assert job.error is None
    with Held(tmp_path) as held:
        until(lambda: held.readings.counts() == (0, 0))
        assert Library(tmp_path).documents("a")[0].text == LONG


def test_a_place_gives_what_it_was_given(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.recorded() is None
    wish = Wish(
        "add", "ann", "x", (Spooled("0", "é\n", 3),), 1.5, keep_for=2.0, error={"message": "no", "n": 1}
    )
    place.record(wish)
    assert place.recorded() == wish
    (tmp_path / "record.json").write_text('{"kind": "add"}')
    with pytest.raises(SakuinError, match="damaged"):
        place.recorded()


def test_smollm2_reads_and_answers_through_the_server(smollm2: tuple[Any, Any], tmp_path: Path) -> None:
    text = "The harbour master is called Ilse Brandt. Ships wait at the north pier. " * 3
    with Held(tmp_path, model=smollm2) as held:
        job = upload(held, "harbour", text)
        assert job.over.wait(120)
        assert job.error is None
        answer = held.shelves.of(ANYONE).open("harbour").ask("Who is the harbour master?", 16)
    assert "Brandt" in answer.text
