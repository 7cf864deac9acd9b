"""Texts of kinds that no package carries: contracts, service logs, tables and JSON, Japanese rules of a firm.

Each function writes at least so many characters, the same for the same seed, and never comes to an end of new
names, numbers and dates, so that any length can be had. The sentences lie in the folder `phrases` and are
ours (Apache-2.0, as this package). Called by `sakuin.evaluate.texts.domains`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import cache
from importlib.resources import files


@cache
def phrases(name: str) -> tuple[str, ...]:
    """The lines of a file in `phrases`."""
    text = files("sakuin.evaluate.texts").joinpath("phrases", name).read_text(encoding="utf-8")
    return tuple(text.splitlines())


@cache
def words(kind: str) -> tuple[str, ...]:
    """A list of names or things in `phrases/words.txt`."""
    for line in phrases("words.txt"):
        name, _, listed = line.partition(": ")
        if name == kind:
            return tuple(listed.split(", "))
    raise KeyError(kind)


def written(characters: int, seed: int, piece: Callable[[random.Random, int], str]) -> str:
    """Pieces, one after another, until there are so many characters."""
    rng = random.Random(seed)
    parts: list[str] = []
    held = 0
    while held < characters:
        parts.append(piece(rng, len(parts)))
        held += len(parts[-1])
    return "".join(parts)


def contracts(characters: int, seed: int = 0) -> str:
    """Agreements between made-up firms, clause by clause, each with numbers and dates of its own."""

    def agreement(rng: random.Random, number: int) -> str:
        city = words("cities")
        parts = [
            f"AGREEMENT No. {rng.randrange(10_000, 99_999)}\n\nbetween {_firm(rng)}, {rng.choice(city)} (the "
            f"Supplier), and {_firm(rng)}, {rng.choice(city)} (the Customer), signed on {_day(rng)}.\n"
        ]
        clauses = phrases("contracts.txt")
        for at, clause in enumerate(rng.sample(clauses, rng.randrange(9, len(clauses) + 1)), 1):
            title, _, body = clause.partition("|")
            filled = body.format(
                day=_day(rng),
                n=rng.randrange(6, 61),
                m=rng.randrange(2, 10),
                k=rng.randrange(5, 61),
                sum=f"{rng.randrange(5, 900) * 500:,}",
                rate=f"{rng.randrange(10, 90) / 10:.1f}",
                letter=rng.choice("ABCDE"),
                city=rng.choice(city),
                person=rng.choice(words("people")),
                firm=_firm(rng),
            )
            parts.append(f"{at}. {title}. {filled}\n")
        return "\n".join(parts) + "\n\n"

    return written(characters, seed, agreement)


def _firm(rng: random.Random) -> str:
    return " ".join(rng.choice(words(kind)) for kind in ("first", "second", "forms"))


def _day(rng: random.Random) -> str:
    day = date(2024, 1, 1) + timedelta(days=rng.randrange(4000))
    return f"{day.day} {day:%B %Y}"


def logs(characters: int, seed: int = 0) -> str:
    """The log of a made-up service: requests, warnings, now and then a stack of frames."""
    clock = datetime(2031, 3, 14, 6, 0)

    def line(rng: random.Random, number: int) -> str:
        nonlocal clock
        clock += timedelta(milliseconds=rng.randrange(3, 4000))
        service, request = rng.choice(words("services")), f"{rng.getrandbits(32):08x}"
        host = f"10.{rng.randrange(8)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        start = f"{clock:%Y-%m-%dT%H:%M:%S}.{clock.microsecond // 1000:03d}Z"
        process = f"{service}[{rng.randrange(100, 9999)}]"
        if rng.random() < 0.15:
            ms, n = rng.randrange(40, 9000), rng.randrange(1, 10)
            text = rng.choice(phrases("trouble.txt"))
            found = (
                f"{start} WARN  {process} {text.format(host=host, n=n, ms=ms, service=service, id=request)}\n"
            )
            if rng.random() < 0.2:
                frames = rng.sample(("read_rows", "open_session", "commit", "handle", "decode", "send"), 3)
                found += "".join(
                    f"    at {service}.{frame} ({service}.py:{rng.randrange(20, 900)})\n" for frame in frames
                )
            return found
        path = rng.choice(words("paths")).format(id=rng.randrange(1000, 99999))
        verb = rng.choice(("GET", "POST", "PUT"))
        status = rng.choices((200, 201, 204, 304, 400, 404, 500, 503), (70, 8, 5, 5, 4, 5, 2, 1))[0]
        size, ms = rng.randrange(120, 60000), rng.randrange(1, 900)
        return f"{start} INFO  {process} {host} {verb} {path} {status} {size}B {ms}ms req={request}\n"

    return written(characters, seed, line)


_COLUMNS = ("part", "name", "depot", "stock", "price", "counted")


def tables(characters: int, seed: int = 0) -> str:
    """CSV, Markdown tables and JSON objects of a made-up stock, in turns."""

    def row(rng: random.Random) -> list[object]:
        return [
            f"{rng.choice('ABCDEFG')}{rng.randrange(1000, 9999)}",
            rng.choice(words("goods")),
            rng.choice(words("cities")),
            rng.randrange(0, 4000),
            round(rng.uniform(0.4, 900), 2),
            str(date(2029, 1, 1) + timedelta(days=rng.randrange(900))),
        ]

    def block(rng: random.Random, number: int) -> str:
        rows = [row(rng) for _ in range(rng.randrange(8, 24))]
        if number % 3 == 0:
            lines = [",".join(_COLUMNS), *(",".join(map(str, each)) for each in rows)]
        elif number % 3 == 1:
            lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
            lines += ["| " + " | ".join(map(str, each)) + " |" for each in rows]
        else:
            items = [dict(zip(_COLUMNS, each, strict=True)) for each in rows[:8]]
            lines = [json.dumps({"warehouse": rng.choice(words("cities")), "items": items}, indent=2)]
        return "\n".join(lines) + "\n\n"

    return written(characters, seed, block)


def japanese(characters: int, seed: int = 0) -> str:
    """Rules (規程) of a made-up firm: numbered articles with names, amounts and dates."""

    def rule(rng: random.Random, number: int) -> str:
        head = ""
        if number % 12 == 0:
            subject = rng.choice(words("物")) + rng.choice(words("題"))
            head = f"\n第{number // 12 + 1}章　{subject}規程\n\n"
        body = rng.choice(phrases("rules-ja.txt")).format(
            題=rng.choice(words("題")),
            部署=rng.choice(words("部署")),
            部署二=rng.choice(words("部署")),
            物=rng.choice(words("物")),
            月=rng.randrange(1, 13),
            日=rng.randrange(1, 29),
            数=rng.randrange(2, 90),
            金=f"{rng.randrange(3, 900) * 1000:,}",
            年=rng.randrange(2, 11),
            地名=rng.choice(words("地名")),
            地名二=rng.choice(words("地名")),
            氏名=rng.choice(words("氏名")),
        )
        return f"{head}第{number + 1}条{body}\n"

    return written(characters, seed, rule)
