"""Who is looking: people who logged in, or the one person of this machine who has the address with the token."""

from __future__ import annotations

import getpass
import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from dictalake.errors import ConfigError

_IDLE_S = 12 * 3600.0  # a session that nobody uses for so long is over
_MOST_SESSIONS, _MOST_SEARCHES = 1000, 200
_PAUSE_AFTER, _PAUSE_S = 5, 30.0  # wrong passwords for one name, and how long that name is refused then
_MOST_WAITING = 8  # passwords to check: more would take all threads of the server, and 64 MB of memory each if at once


@dataclass
class Session:
    """One browser. ``csrf`` stands in each of its forms. ``searches`` are words that were looked for: they are patient data, so
    an address names them by a number."""

    who: str
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    searches: dict[str, str] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    came_from: dict[tuple[str, str], str] = field(default_factory=dict)  # pages of lists, see ``paging``
    used_at: float = field(default_factory=time.monotonic)

    def remember(self, words: str) -> str:
        """The number of a search."""
        for number, known in self.searches.items():
            if known == words:
                return number
        while len(self.searches) >= _MOST_SEARCHES:
            del self.searches[next(iter(self.searches))]
        number = secrets.token_hex(4)
        self.searches[number] = words
        return number


class Sessions:
    """The open sessions, in memory: they end with the server."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, who: str) -> tuple[str, Session]:
        """A new session and the secret of its cookie."""
        secret, session = secrets.token_urlsafe(32), Session(who)
        with self._lock:
            latest = time.monotonic() - _IDLE_S
            self._open = {key: one for key, one in self._open.items() if one.used_at > latest}
            while len(self._open) >= _MOST_SESSIONS:
                del self._open[min(self._open, key=lambda key: self._open[key].used_at)]
            self._open[secret] = session
        return secret, session

    def find(self, secret: str) -> Session | None:
        session = self._open.get(secret)
        if session is None or time.monotonic() - session.used_at > _IDLE_S:
            return None
        session.used_at = time.monotonic()
        return session

    def close(self, secret: str) -> None:
        with self._lock:
            self._open.pop(secret, None)


class Token:
    """The secret in the address that the server prints: whoever has it may look.

    The browser is started with one that opens a single session, as all users of a machine see how programs were started.
    """

    def __init__(self) -> None:
        self.value = secrets.token_urlsafe(32)
        self._once = ""
        self._lock = threading.Lock()

    def make_once(self) -> str:
        """A secret that matches once."""
        self._once = secrets.token_urlsafe(32)
        return self._once

    def matches(self, given: str) -> bool:
        with self._lock:
            if self._once and hmac.compare_digest(self._once.encode(), given.encode()):
                self._once = ""
                return True
        return hmac.compare_digest(self.value.encode(), given.encode())


class Users:
    """The file ``review.users``: a line ``NAME:HASH`` for each person; the hashes are Argon2's."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for a file that cannot be read or holds another line."""
        self._hasher = PasswordHasher()
        self._hashes: dict[str, str] = {}
        self._wrong: dict[str, tuple[int, float]] = {}
        self._turn, self._waiting = threading.Lock(), threading.BoundedSemaphore(_MOST_WAITING)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"review.users: {type(error).__name__}: the file cannot be read") from None
        for number, line in enumerate(lines, 1):
            name, colon, hashed = line.strip().partition(":")
            if not line.strip():
                continue
            if not (name and colon and hashed.startswith("$argon2")):
                raise ConfigError(f"review.users: line {number} is not NAME:HASH; `dictalake review --add-user` writes it")
            self._hashes[name] = hashed
        if not self._hashes:
            raise ConfigError("review.users names nobody; `dictalake review --add-user NAME` adds a person")
        self._nobody = self._hasher.hash(secrets.token_hex(8))  # a name that is not there takes as long as one that is

    def check(self, name: str, password: str) -> bool:
        """Whether this is the person's password. After five wrong ones the name is refused for half a minute.

        One is checked at a time, and each takes as long: nobody gets more tries by many requests at once, fills the memory, or
        learns from the time which names there are. Of a crowd that waits the rest is refused.
        """
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            with self._turn:
                return self._check(name, password)
        finally:
            self._waiting.release()

    def _check(self, name: str, password: str) -> bool:
        try:
            is_right = self._hasher.verify(self._hashes.get(name, self._nobody), password) and name in self._hashes
        except (VerificationError, InvalidHashError):
            is_right = False
        count, until = self._wrong.get(name, (0, 0.0))
        if count >= _PAUSE_AFTER and time.monotonic() < until:
            return False
        if is_right:
            self._wrong.pop(name, None)
        elif name in self._hashes:
            self._wrong[name] = (count + 1, time.monotonic() + _PAUSE_S)
        return is_right


def add_user(path: Path, name: str, password: str) -> None:
    """Writes a person into ``review.users``, in place of an older line of the same name. Raises ConfigError."""
    if not name or len(name) > 64 or not name.isprintable() or ":" in name:
        raise ConfigError("--add-user: a name has 1 to 64 letters and no colon")
    if len(password) < 10:
        raise ConfigError("--add-user: a password has at least 10 characters")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if line.partition(":")[0] != name and line.strip()]
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text("\n".join([*kept, f"{name}:{PasswordHasher().hash(password)}"]) + "\n", encoding="utf-8")


def name_account() -> str:
    """The login of whoever runs the server."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container without a name for its user
        return "reviewer"
