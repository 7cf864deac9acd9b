"""The file of keys: who may ask, by which key, and how much.

A key is `sk-ID-SECRET`. The file holds the id and an argon2 hash of the whole key, so that who reads the file
has no key. A key is hashed when it is first seen; from then on it is known again by a keyed code that this
process alone can compute. What is compared, is compared in constant time, and an id that there is not costs a
hash like one that there is. The file is looked at for each request: what was revoked ends at once.

    {"format": 1, "keys": [{"id", "name", "hash", "created", "allowed": {…}, "grants": […]}, …]}

Only making and checking keys needs argon2. Called by `sakuin.server.tenants.door` and `sakuin.cli.keys`.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import string
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sakuin import arguments
from sakuin.errors import SakuinError
from sakuin.library.folder import checked_name, normal
from sakuin.quantities import listed, meant
from sakuin.server.tenants.tenant import Allowed, Tenant
from sakuin.storage.locks import locked
from sakuin.storage.paths import expanded
from sakuin.storage.small_files import read_json
from sakuin.storage.whole_files import write_whole

if TYPE_CHECKING:
    from argon2 import PasswordHasher

FORMAT = 1
MOST_A_MINUTE = 100_000
"""Requests a minute that a limit may allow: each of the last minute is remembered."""

_PASSES, _KIB = 2, 19_456
"""Of argon2id, on one thread: what OWASP asks for passwords at least. Secrets here have 256 random bits,
which nobody guesses however fast the hash."""

_HASH = re.compile(rf"\$argon2id\$v=19\$m={_KIB},t={_PASSES},p=1\$[A-Za-z0-9+/]{{22}}\$[A-Za-z0-9+/]{{43}}")
_STAND_IN = f"$argon2id$v=19$m={_KIB},t={_PASSES},p=1${'A' * 22}${'A' * 43}"
"""What a key is hashed against whose id there is not."""
_KEY = re.compile(r"sk-([0-9a-f]{12})-[A-Za-z0-9]{43}")
_LETTERS = string.ascii_letters + string.digits
_MOST_WRONG = 1024
"""Wrong keys that are remembered, so that a program that goes on with one is not hashed again and again."""

_LEAST = {"requests_per_minute": 1, "concurrent": 1, "stored_bytes": 0, "context_tokens": 1}
_MOST = {"requests_per_minute": MOST_A_MINUTE}
_MOST_PRIORITY = 1000


@dataclass(frozen=True)
class Key:
    """What the file says of a key. created : seconds since 1970."""

    id: str
    hash: str
    created: float
    tenant: Tenant


class Keys:
    """The keys in a file, which must be there to be asked and is made by `add`. From any thread.

    Raises `SakuinError` where the file cannot be read or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = expanded(arguments.path("api_keys", path))
        self._pepper = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._mark: tuple[int, ...] | None = None
        self._by_id: dict[str, Key] = {}
        self._right: dict[str, tuple[str, bytes]] = {}  # by id: the hash that a key fitted, and its code
        self._wrong: OrderedDict[bytes, None] = OrderedDict()

    def check(self) -> None:
        """Raise `SakuinError` where nobody could be let in: the file cannot be read, or argon2 is missing."""
        _check_argon2()
        self.listed()

    def remembered(self, key: str) -> Tenant | bool:
        """Whose key it is, if it was seen before; False if it is nobody's, and True if only `find` can tell.
        Costs microseconds."""
        found = _KEY.fullmatch(key)
        if found is None:
            return False
        code = self._code(key)
        with self._lock:
            self._read_again()
            if hmac.compare_digest(self._right.get(found[1], ("", b""))[1], code):
                return self._by_id[found[1]].tenant
            return code not in self._wrong

    def find(self, key: str) -> Tenant | None:
        """Whose key it is, or None. A key that was not seen before costs a hash: tens of milliseconds, and
        20 MB. Who calls it for strangers limits how often (`sakuin.server.tenants.door`)."""
        seen = self.remembered(key)
        if isinstance(seen, Tenant):
            return seen
        if not seen:
            return None
        name, code = key.split("-")[1], self._code(key)
        with self._lock:
            record = self._by_id.get(name)
        right = _matches(_STAND_IN if record is None else record.hash, key)
        with self._lock:
            self._read_again()
            if record is None or not right:
                self._wrong[code] = None
                if len(self._wrong) > _MOST_WRONG:
                    self._wrong.popitem(last=False)
                return None
            now = self._by_id.get(name)
            if now is None or now.hash != record.hash:  # revoked meanwhile
                return None
            self._right[name] = (now.hash, code)
            return now.tenant

    def listed(self) -> list[Key]:
        """All keys, as they were made."""
        with self._lock:
            self._read_again()
            return list(self._by_id.values())

    def add(
        self,
        name: str,
        allowed: Allowed | None = None,
        grants: frozenset[str] = frozenset(),
        replace: bool = False,
    ) -> str:
        """Make a key for `name`, which is nowhere but in what this returns.

        replace : whether a key that `name` has already ends with that.
        Raises `SakuinError` for a name or a limit that cannot be, or a name that has a key.
        """
        name, allowed = _checked(name), _allowed(asdict(allowed or Allowed()))
        tenant = Tenant(name, allowed, frozenset(checked_name(one) for one in grants))
        said = secrets.token_hex(6)
        key = f"sk-{said}-{''.join(secrets.choice(_LETTERS) for _ in range(43))}"
        new = Key(said, _hasher().hash(key), time.time(), tenant)
        with self._changing() as keys:
            for former in [one for one in keys if one.tenant.name == name]:
                if not replace:
                    raise SakuinError(
                        f"{name} has a key already, of which only a hash is kept: give it a new one by "
                        f"--replace, or take it away first by `sakuin keys revoke {name}`."
                    )
                keys.remove(former)
            keys.append(new)
        return key

    def revoke(self, name: str) -> None:
        """Take the key of `name` away, for good. Its contexts stay."""
        name = normal(name)
        with self._changing() as keys:
            gone = [one for one in keys if one.tenant.name == name]
            if not gone:
                names = [one.tenant.name for one in keys]
                there = f"there are {listed(sorted(names))}" if names else "there is none at all"
                raise SakuinError(f"there is no key of {name!r:.120}{meant(name, names)}; {there}.")
            keys.remove(gone[0])

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys, to be changed: they are written at the end, and nobody else changes them meanwhile."""
        target = Path(os.path.realpath(self.path))  # a link stays one
        if not target.parent.is_dir():
            raise SakuinError(f"there is no folder {target.parent} for the file of keys; make it first.")
        with locked(target.with_name(f"{target.name}.lock")):
            keys = list(self._load() if os.path.lexists(target) else [])
            yield keys
            said = {"format": FORMAT, "keys": [_as_json(one) for one in keys]}
            write_whole(target, json.dumps(said, indent=1).encode() + b"\n")

    def _code(self, key: str) -> bytes:
        return hmac.digest(self._pepper, key.encode(), "sha256")

    def _read_again(self) -> None:
        """Read the file where it has changed. The caller holds the lock. While it cannot be read, no key is
        right."""
        try:
            about = os.stat(self.path)
            mark = (about.st_ino, about.st_dev, about.st_mtime_ns, about.st_ctime_ns, about.st_size)
        except OSError:
            mark = None
        if mark is not None and mark == self._mark:
            return
        self._mark = None
        self._by_id = {one.id: one for one in self._load()}
        self._wrong.clear()
        hashes = {name: one.hash for name, one in self._by_id.items()}
        self._right = {name: one for name, one in self._right.items() if hashes.get(name) == one[0]}
        self._mark = mark

    def _load(self) -> list[Key]:
        try:
            said = read_json(self.path)
        except FileNotFoundError:
            raise SakuinError(
                f"there is no file of keys {self.path}; `sakuin keys add NAME --api-keys {self.path}` makes "
                "it with a first key."
            ) from None
        except OSError as error:
            raise SakuinError(
                f"the keys in {self.path} cannot be read ({error.strerror}); name a file that you may read."
            ) from None
        except ValueError as error:
            raise self._damaged(f"it is not JSON: {error}") from None
        if not isinstance(said, dict) or not isinstance(said.get("keys"), list):
            raise self._damaged("it has no list of keys")
        if said.get("format") != FORMAT:
            raise SakuinError(
                f"{self.path} has the format version {said.get('format')!r:.40}, and this sakuin knows "
                f"{FORMAT}; take a newer sakuin."
            )
        keys = []
        for at, one in enumerate(said["keys"], 1):
            try:
                keys.append(_from_json(one))
            except (SakuinError, KeyError, TypeError, ValueError) as error:
                raise self._damaged(f"its key {at} has a wrong {error.args[0]!s:.120}".rstrip(".")) from None
        for what in ([one.id for one in keys], [one.tenant.name for one in keys]):
            if twice := [one for one, times in Counter(what).items() if times > 1]:
                raise self._damaged(f"{listed(sorted(twice))} is there twice")
        return keys

    def _damaged(self, why: str) -> SakuinError:
        return SakuinError(f"{self.path} is no file of keys, or is damaged ({why}); restore it.")


def _check_argon2() -> None:
    if find_spec("argon2") is None:
        raise SakuinError("keys are hashed by argon2, which is not installed: pip install 'sakuin[server]'.")


def _hasher() -> PasswordHasher:
    _check_argon2()
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=_PASSES, memory_cost=_KIB, parallelism=1)


def _matches(code: str, key: str) -> bool:
    """Whether `code` is a hash of `key`; compared in constant time by argon2 itself."""
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(code, key)
    except (VerificationError, InvalidHashError):
        return False


def _checked(name: str) -> str:
    """A tenant's name, which is also that of the folder of its contexts."""
    try:
        return checked_name(name)
    except SakuinError as error:
        raise SakuinError(str(error).replace("a context", "who has a key", 1)) from None


def _allowed(said: dict[str, Any]) -> Allowed:
    """Limits as they were given or read; a `SakuinError` for one that cannot be."""
    if unknown := sorted(said.keys() - asdict(Allowed()).keys()):
        raise SakuinError(f"{unknown[0]!r:.40} is no limit; there are {listed(asdict(Allowed()))}.")
    limits = {
        name: None if said.get(name) is None else arguments.whole(name, said[name], least, _MOST.get(name))
        for name, least in _LEAST.items()
    }
    priority = arguments.whole("priority", said.get("priority", 0), -_MOST_PRIORITY, _MOST_PRIORITY)
    return Allowed(**limits, priority=priority)


def _as_json(key: Key) -> dict[str, Any]:
    allowed = {name: value for name, value in asdict(key.tenant.allowed).items() if value is not None}
    return {
        "id": key.id,
        "name": key.tenant.name,
        "hash": key.hash,
        "created": key.created,
        "allowed": allowed,
        "grants": sorted(key.tenant.grants),
    }


def _from_json(said: Any) -> Key:
    """A key of the file; what is wrong with one is told by the name of its member."""
    name, allowed, grants = said["name"], said.get("allowed", {}), said.get("grants", [])
    if not isinstance(name, str) or _checked(name) != name:
        raise ValueError("name")
    if not isinstance(said["id"], str) or not _KEY.fullmatch(f"sk-{said['id']}-{'a' * 43}"):
        raise ValueError("id")
    if not isinstance(said["hash"], str) or not _HASH.fullmatch(said["hash"]):
        raise ValueError("hash")
    if (created := arguments.real(said["created"])) is None:
        raise ValueError("created")
    if not isinstance(allowed, dict):
        raise ValueError("allowed")
    if not isinstance(grants, list) or not all(isinstance(one, str) for one in grants):
        raise ValueError("grants")
    granted = frozenset(checked_name(one) for one in grants)
    return Key(said["id"], said["hash"], created, Tenant(name, _allowed(allowed), granted))
