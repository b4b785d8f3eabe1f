"""The page of one recording: heard, read, corrected."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dictalake.evaluation.normalise import normalise_words_only
from dictalake.evaluation.word_errors import ErrorCount, count_errors
from dictalake.lake.corrections import FLAGS, Conflict, CorrectionRecord, Sampling, hash_text
from dictalake.review.place import field_of, go, place_of, render, session_of, write_down
from dictalake.review.words import compare_texts, time_words

_MOST_MINUTES = 240.0
_SECONDS = re.compile(r"[0-9]{1,12}")  # since 1970
_FLAG_WORDS = {
    "unintelligible": "Unintelligible",
    "not_dictation": "Not a dictation",
    "wrong_patient": "Of another patient",
    "sound_cut": "The sound is cut off",
}


def find_rows(request: Request, recording_id: str) -> list[dict[str, Any]]:
    """The rows of a recording as the lake is now, the one that counts first. Raises HTTPException 404: it may be erased."""
    place = place_of(request)
    place.snapshot.refresh()
    rows = place.snapshot.read_rows(recording_id)
    if not rows:
        place.sounds.drop(recording_id)
        raise HTTPException(404, "The lake has no such recording.")
    return rows


def show_recording(request: Request) -> Response:
    recording_id = request.path_params["recording_id"]
    rows, place = find_rows(request, recording_id), place_of(request)
    write_down(request, [recording_id], "page")
    if rows[0]["status"] == "ok":
        place.sounds.load(rows[0])
    sampling = request.query_params.get("sampling", "own")
    return render(request, "recording.html", **describe(request, rows, sampling if sampling in get_args(Sampling) else "own"))


def describe(request: Request, rows: Sequence[Mapping[str, Any]], sampling: str) -> dict[str, Any]:
    """What the template shows."""
    row, place = rows[0], place_of(request)
    corrections = place.snapshot.corrections
    last, current = corrections.find_last(row["recording_id"]), corrections.find_current(row["recording_id"])
    words = row["words"] or []
    promoted = [one["fingerprint"] for one in place.snapshot.query("SELECT fingerprint FROM promoted ORDER BY place")]
    since = datetime.now(UTC) - timedelta(minutes=place.config.review.claim_min)
    holder = corrections.find_claim(row["recording_id"], since)
    others = [_compare(row, other) for other in rows[1:] if other["status"] == "ok"]
    return {
        "row": row,
        "text": (current.text if current else row["text"]) or "",
        "machine": time_words(row["text"] or "", words),
        "corrected": time_words(current.text or "", words) if current else [],
        "correction": current,
        "found": place.findings.read(row, current.text if current else None) if row["status"] == "ok" else None,
        "changes": compare_texts(row["text"] or "", current.text or "") if current else [],
        "last": last,
        "history": list(reversed(corrections.list_of(row["recording_id"]))),
        "readings": _list_readings(row),
        "others": others,
        "is_production": bool(promoted) and row["fingerprint"] == promoted[0],
        "channels": max([1, *(word["channel"] + 1 for word in words)], default=1),
        "flags": _FLAG_WORDS,
        "sampling": sampling,
        "holder": holder if holder not in (None, session_of(request).who) else None,
        "opened": int(time.time()),
        "details": list(_list_details(row)),
    }


def _compare(row: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    pieces = compare_texts(other["text"] or "", row["text"] or "")
    return {"row": other, "pieces": pieces, "rate": count(row["text"], other["text"]).rate}


def _list_readings(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Alternatives, each with what it has that the first has not."""
    readings = row["nbest"] or []
    first = readings[0]["text"] if readings else ""
    return [{**one, "pieces": compare_texts(first, one["text"] or "")} for one in readings[1:]]


def _list_details(row: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headed lists of names and values: everything that the row says of itself."""
    made = {**(row["provenance"] or {}), "timings": row["timings"]}
    groups = {"Source": row["source"], "Provenance": made, "Measures": row["quality"], "DICOM": row["dicom"]}
    listed = [(title, _show_fields(fields)) for title, fields in groups.items() if fields]
    return [*listed, ("Your manifest", [(key, value or "–") for key, value in row["metadata"] or []])]


def _show_fields(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            shown += _show_fields(value)
        elif isinstance(value, list):
            parts = [" ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in value]
            shown.append((name, ", ".join(parts) or "–"))
        else:
            shown.append((name, f"{value:.3f}" if isinstance(value, float) else "–" if value is None else str(value)))
    return shown


def count(reference: str | None, hypothesis: str | None) -> ErrorCount:
    """Word errors under the normaliser ``words``."""
    return count_errors([(normalise_words_only(reference or ""), normalise_words_only(hypothesis or ""))])


def save_correction(request: Request) -> Response:
    """The next page, or this one with both texts where another person saved first."""
    recording_id = request.path_params["recording_id"]
    rows, place = find_rows(request, recording_id), place_of(request)
    seen = (field_of(request, "fingerprint"), field_of(request, "attempt"))
    row = next((one for one in rows if (one["fingerprint"], str(one["attempt"])) == seen), None)
    if row is None or row["status"] != "ok":
        raise HTTPException(409, "The transcript that you corrected is no longer in the lake. Open the recording again.")
    text = field_of(request, "text").replace("\r\n", "\n").strip()
    flags = tuple(flag for flag in FLAGS if flag in request.state.form.get("flags", []))
    if not text and not flags:
        raise HTTPException(400, "Say what is wrong with the recording, if nothing was said in it.")
    found = count(text, row["text"])
    opened = field_of(request, "opened", "0")
    minutes = (time.time() - int(opened)) / 60 if _SECONDS.fullmatch(opened) else 0.0
    sampling = field_of(request, "sampling")
    before = place.snapshot.corrections.find_current(recording_id)
    record = CorrectionRecord(
        recording_id=recording_id,
        event="corrected",
        who=session_of(request).who,
        fingerprint=row["fingerprint"],
        attempt=row["attempt"],
        replaces=field_of(request, "replaces") or None,
        old_sha256=hash_text(before.text if before else row["text"]),
        text=text,
        flags=flags,
        minutes=round(min(max(minutes, 0.0), _MOST_MINUTES), 2),
        confidence=row["confidence"],
        words=found.words,
        word_errors=found.substitutions + found.deletions + found.insertions,
        sampling=sampling if sampling in get_args(Sampling) else "own",  # type: ignore[arg-type]
    )
    try:
        place.snapshot.corrections.save(record)
    except Conflict as conflict:
        return _show_conflict(request, row, conflict.record, text, flags)
    place.snapshot.require_there(recording_id)
    if field_of(request, "then") == "next" and sampling in ("worst", "random"):
        return go(f"/queue?sampling={sampling}&saved=1")
    return go(f"/recordings/{recording_id}")


def _show_conflict(
    request: Request, row: Mapping[str, Any], record: CorrectionRecord | None, mine: str, flags: Sequence[str]
) -> Response:
    write_down(request, [row["recording_id"]], "page")
    theirs = (record.text if record is not None else None) or row["text"] or ""
    return render(
        request,
        "conflict.html",
        409,
        row=row,
        record=record,
        theirs=theirs,
        mine=mine,
        pieces=compare_texts(theirs, mine),
        chosen=flags,
        opened=field_of(request, "opened"),
        sampling=field_of(request, "sampling"),
    )


def undo_correction(request: Request) -> Response:
    recording_id = request.path_params["recording_id"]
    find_rows(request, recording_id)
    snapshot = place_of(request).snapshot
    try:
        snapshot.corrections.undo(recording_id, field_of(request, "seen"), session_of(request).who)
    except Conflict:
        raise HTTPException(409, "Another person changed this recording meanwhile. Open it again to see how.") from None
    snapshot.require_there(recording_id)  # an undo writes the older text anew
    return go(f"/recordings/{recording_id}")
