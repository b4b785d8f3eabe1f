"""The way back in a list. A page is named by where the last one ended, so only who came from there knows the one before."""

from __future__ import annotations

from dictalake.review.sessions import Session

_MOST = 500  # pages that a session remembers


def remember_next(session: Session, view: str, here: str, following: str | None) -> None:
    """That the page ``following`` of the list ``view`` comes after ``here``, which is empty for the first page."""
    if following is None:
        return
    while len(session.came_from) >= _MOST:
        del session.came_from[next(iter(session.came_from))]
    session.came_from[view, following] = here


def find_previous(session: Session, view: str, here: str) -> str | None:
    """Where the page before ``here`` begins; None on the first page, and where nobody knows: the page was opened by a link."""
    return session.came_from.get((view, here)) if here else None
