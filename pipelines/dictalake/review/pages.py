"""The pages about many recordings: overview, list, queue, comparison; and the way in and out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dictalake.config.locations import PACKAGE
from dictalake.errors import ConfigError, RunError, advise
from dictalake.evaluation.assessment import read_terms
from dictalake.evaluation.clinical import count_clinical
from dictalake.evaluation.normalise import normalise_words_only
from dictalake.evaluation.promotion import compare_fingerprints
from dictalake.lake.search import TextIndex, default_folder
from dictalake.review.listing import (
    COLUMNS,
    OPERATORS,
    SORTS,
    BadFilter,
    Filter,
    View,
    parse_filter,
    read_filter,
    read_page,
)
from dictalake.review.measure import list_next, measure_lake
from dictalake.review.paging import find_previous, remember_next
from dictalake.review.place import Place, field_of, go, place_of, render, render_message, session_of, write_down
from dictalake.review.recording_page import count, find_rows
from dictalake.review.words import compare_texts

_HITS = 500
_SAMPLE = 200  # recordings of a comparison of fingerprints


def enter(request: Request) -> Response:
    """With the token of the printed address. The page leads on by itself: a browser that came from elsewhere would not send a
    strict cookie along with a redirect."""
    place = place_of(request)
    if place.users is not None or not place.token.matches(request.query_params.get("token", "")):
        return render_message(request, 401, "Not the address", "Open the address that dictalake review printed last.")
    who = place.config.review.user
    assert who is not None
    return _open_session(place, who)


def _open_session(place: Place, who: str) -> Response:
    secret, _ = place.sessions.open(who)
    page = '<!doctype html><html lang="en"><title>dictalake review</title><meta http-equiv="refresh" content="0;url=/">'
    response = HTMLResponse(f'{page}<p><a href="/">Go on</a></p></html>')
    response.set_cookie(
        place.cookie, secret, httponly=True, samesite="strict", secure=place.config.review.tls_cert is not None, path="/"
    )
    return response


def log_in(request: Request) -> Response:
    place = place_of(request)
    if place.users is None:
        return render_message(request, 401, "Not the address", "Open the address that dictalake review printed last.")
    if request.method == "POST":
        name = field_of(request, "name")
        if place.users.check(name, field_of(request, "password")):
            return _open_session(place, name)
    template = place.templates.get_template("login.html")
    shown = {"session": None, "now": 0, "can_log_out": False, "is_wrong": request.method == "POST"}
    return HTMLResponse(template.render(shown), 403 if request.method == "POST" else 200)


def log_out(request: Request) -> Response:
    place = place_of(request)
    place.sessions.close(request.cookies.get(place.cookie, ""))
    return go("/login")


def show_overview(request: Request) -> Response:
    place = place_of(request)
    snapshot = place.snapshot
    snapshot.refresh()
    shown = snapshot.remember("overview", lambda: _count(place))
    return render(request, "overview.html", **shown, runs=snapshot.list_runs()[:7], measured=measure_lake(snapshot))


def _count(place: Place) -> dict[str, Any]:
    """What the overview says of the rows and corrections."""
    snapshot = place.snapshot
    [counts] = snapshot.query(
        """
        SELECT count(*) AS recordings, count(*) FILTER (status = 'ok') AS ok, count(*) FILTER (status = 'failed') AS failed,
            coalesce(sum(duration_s), 0) / 3600 AS hours, avg(confidence) AS confidence,
            count(*) FILTER (lost_s > 0) AS incomplete, coalesce(sum(lost_s), 0) AS lost_s,
            count(*) FILTER (uncovered_s >= 1) AS uncovered, coalesce(sum(uncovered_s), 0) AS uncovered_s,
            (SELECT count(*) FROM checked) AS checked
        FROM listed
        """
    )
    failures = snapshot.query(
        "SELECT coalesce(reason, 'unknown') AS reason, count(*) AS rows FROM listed WHERE status = 'failed' GROUP BY 1 "
        "ORDER BY 2 DESC, 1"
    )
    bars = snapshot.query(
        "SELECT least(floor(confidence * 10), 9)::INT AS place, count(*) AS rows FROM listed WHERE confidence IS NOT NULL "
        "GROUP BY 1 ORDER BY 1"
    )
    most = max((bar["rows"] for bar in bars), default=1)
    by_place = {bar["place"]: bar["rows"] for bar in bars}
    return {
        "counts": counts,
        "failures": [{**one, "advice": advise(one["reason"])} for one in failures],
        "bars": [(tenth / 10, by_place.get(tenth, 0), 100 * by_place.get(tenth, 0) / most) for tenth in range(10)],
        "promoted": snapshot.query("SELECT * FROM promoted ORDER BY place, fingerprint"),
        "reliability": _measure_reliability(place),
    }


def _measure_reliability(place: Place) -> list[dict[str, Any]]:
    """Of corrected recordings by their confidence: how sure the machine was, and how many of its words were right."""
    bands: dict[int, list[Any]] = {}
    for one in place.snapshot.corrections.list_current():
        if one.words and one.confidence is not None:
            bands.setdefault(min(int(one.confidence * 10), 9), []).append(one)
    return [
        {
            "recordings": len(found),
            "confidence": sum(one.confidence for one in found) / len(found),
            "right": max(0.0, 1 - sum(one.word_errors for one in found) / sum(one.words for one in found)),
        }
        for _, found in sorted(bands.items())
    ]


def show_list(request: Request) -> Response:
    place, session = place_of(request), session_of(request)
    place.snapshot.refresh()
    here = request.query_params.get("after", "")
    try:
        view = _read_view(request)
        private, words = _recall(request, view.search)
        hits = _search(place, words) if words else None
        found = read_page(
            place.snapshot,
            (*view.filters, *private),
            view.sort,
            here,
            None if hits is None else list(hits),
        )
    except (BadFilter, ConfigError) as error:
        return render_message(request, 400, "This list cannot be shown", str(error))
    write_down(request, [row["recording_id"] for row in found.rows if hits and row["recording_id"] in hits], "list")
    remember_next(session, view.link(), here, found.after)
    previous = find_previous(session, view.link(), here)
    return render(
        request,
        "recordings.html",
        view=view,
        page=found,
        hits=hits or {},
        words=words,
        private=private,
        removals=[(one, _without(view, one)) for one in view.filters],
        columns=COLUMNS,
        operators=OPERATORS,
        sorts=SORTS,
        next_link=view.link(after=found.after) if found.after else None,
        previous_link=None if previous is None else view.link(**({"after": previous} if previous else {})),
        saved=place.views.read(),
        view_query=view.link().partition("?")[2],
        is_part=hits is not None and len(hits) == _HITS,
        session_csrf=session.csrf,
    )


def _read_view(request: Request) -> View:
    filters = tuple(parse_filter(text) for text in request.query_params.getlist("f")[:20])
    sort = request.query_params.get("sort", "confidence")
    if sort not in SORTS:
        raise BadFilter("there is no such order")
    return View(filters, sort, request.query_params.get("search", ""))


def _without(view: View, gone: Filter) -> str:
    return View(tuple(one for one in view.filters if one != gone), view.sort, view.search).link()


def _recall(request: Request, number: str) -> tuple[tuple[Filter, ...], str]:
    """The private filters and the words of a search. They end with the session. Raises BadFilter."""
    if not number:
        return (), ""
    known = session_of(request).searches.get(number)
    if known is None:
        raise BadFilter("the words of this search are no longer known; search again")
    document = json.loads(known)
    return tuple(Filter(*one) for one in document["filters"]), document["words"]


def change_list(request: Request) -> Response:
    """Takes words and a condition from the form, and leads to the list that has them. Words never stand in an address."""
    try:
        filters = tuple(parse_filter(text) for text in request.state.form.get("f", [])[:20])
        private, words = _recall(request, field_of(request, "search"))
        words = field_of(request, "words", words)[:1000].strip()
        if field_of(request, "column"):
            new = read_filter(field_of(request, "column"), field_of(request, "operator"), field_of(request, "value").strip())
            new.write({})
            private, filters = ((*private, new), filters) if new.is_private else (private, (*filters, new))
        if field_of(request, "clear"):
            private = ()
    except BadFilter as error:
        return render_message(request, 400, "This list cannot be shown", str(error))
    sort = field_of(request, "sort", "confidence")
    number = ""
    if words or private:
        document = {"words": words, "filters": [[one.column, one.operator, one.value] for one in private]}
        number = session_of(request).remember(json.dumps(document))
    return go(View(filters, sort if sort in SORTS else "confidence", number).link())


def _search(place: Place, words: str) -> dict[str, Any]:
    """Recording id → snippet, the best first. Raises ConfigError for words that the search does not understand."""
    lake = place.config.lake
    index = TextIndex(lake, default_folder(str(lake.uri)))
    index.refresh()
    return {hit.recording_id: hit.snippet for hit in index.search(words, _HITS)}


def show_queue(request: Request) -> Response:
    place = place_of(request)
    place.snapshot.refresh()
    sampling = _read_sampling(request.query_params.get("sampling", ""))
    found = list_next(place.snapshot, session_of(request).who, sampling, place.config.review.claim_min)
    return render(
        request,
        "queue.html",
        sampling=sampling,
        found=found,
        measured=measure_lake(place.snapshot),
        is_saved=request.query_params.get("saved") == "1",
    )


def take_next(request: Request) -> Response:
    """Claims the first free recording and opens it."""
    place, who = place_of(request), session_of(request).who
    sampling = _read_sampling(field_of(request, "sampling"))
    left = field_of(request, "leave")
    if left:
        place.snapshot.refresh()
        if not place.snapshot.has_recording(left):
            raise HTTPException(404, "The lake has no such recording.")
        place.snapshot.corrections.leave(left, who)
    for _ in range(5):
        place.snapshot.refresh()
        since = datetime.now(UTC) - timedelta(minutes=place.config.review.claim_min)
        for one in list_next(place.snapshot, who, sampling, place.config.review.claim_min):
            if place.snapshot.corrections.claim(one.recording_id, who, sampling, since):
                return go(f"/recordings/{one.recording_id}?sampling={sampling}")
    return go(f"/queue?sampling={sampling}")


def _read_sampling(text: str) -> Any:
    return text if text in ("worst", "random") else "worst"


def show_comparison(request: Request) -> Response:
    """Of two fingerprints over the lake, or of two texts of a recording."""
    place = place_of(request)
    place.snapshot.refresh()
    sql = "SELECT DISTINCT fingerprint FROM stored_rows ORDER BY 1"
    there = [one["fingerprint"] for one in place.snapshot.remember(sql, lambda: place.snapshot.query(sql))]
    recording_id = request.query_params.get("recording", "")
    left, right = (request.query_params.get(side, "") for side in ("left", "right"))
    shown: dict[str, Any] = {"fingerprints": there, "left": left, "right": right, "pair": None, "whole": None, "why": ""}
    if recording_id:
        shown["pair"] = _compare_recording(request, recording_id, left, right)
    elif left and right:
        try:
            shown["whole"] = compare_fingerprints(place.config.lake, left, right, sample=_SAMPLE).whole
        except (ConfigError, RunError) as error:
            shown["why"] = str(error)
    return render(request, "compare.html", recording_id=recording_id, **shown)


def _compare_recording(request: Request, recording_id: str, left: str, right: str) -> dict[str, Any]:
    rows, place = find_rows(request, recording_id), place_of(request)
    write_down(request, [recording_id], "page")
    texts = {row["fingerprint"]: row["text"] or "" for row in reversed(rows) if row["status"] == "ok"}
    correction = place.snapshot.corrections.find_current(recording_id)
    if correction is not None:
        texts["correction"] = correction.text or ""
    if not texts:
        raise HTTPException(404, "The recording has no transcript.")
    names = list(texts)
    left = left if left in texts else names[-1]
    right = right if right in texts else next((name for name in reversed(names) if name != left), left)
    errors = count(texts[left], texts[right])
    said, heard = (normalise_words_only(texts[name]) for name in (left, right))
    return {
        "names": names,
        "left": left,
        "right": right,
        "pieces": compare_texts(texts[left], texts[right]),
        "errors": errors,
        "clinical": count_clinical(said, heard),
        "terms": [(term, outcome) for term, _, outcome in _read_terms().compare(said, heard) if outcome != "found"],
    }


@lru_cache(maxsize=1)
def _read_terms() -> Any:
    files = sorted((PACKAGE / "evaluation/terms").glob("*.txt"))
    return read_terms({file.stem: file.read_text(encoding="utf-8") for file in files}, normalise_words_only)
