"""Whether the words of a sentence negate what a name in it stands for: in the manner of NegEx, a negation has a scope.

It reaches forward over the names of a list ("no effusion, consolidation or fracture"), and ends where something else begins:
at "but" and the like, at a semicolon, or where a verb, an article, a number or a word such as "stable" follows a comma or
"and". After a name a predicate negates: "is absent", "was not seen", "ruled out".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from dictalake.evaluation.clinical import NEGATED_WORDS, NEGATIONS

_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[,;:]")
_WINDOW = 6  # words of one element of a list
_REACH = 4  # words of a predicate
_SEPARATORS = frozenset((",", "and", "or", "nor"))
_BREAKS_WORDS = """but however although though except besides which while whereas yet apart aside because due than then until
medications medication meds"""
_BREAKS = frozenset((*_BREAKS_WORDS.split(), ";"))
_VERBS_WORDS = """is are was were has have had shows show showed demonstrates demonstrate reveals reveal remains remain takes
take"""
_VERBS = frozenset(_VERBS_WORDS.split())
_SHOWING = frozenset(("shows", "show", "showed", "demonstrates", "demonstrate", "reveals", "reveal"))
_PLURAL = frozenset(("are", "were", "have", "had"))
# Behind a comma or "and" these begin a statement of their own.
_STARTS_WORDS = """a an the there he she it we i patient this these with on
stable unchanged mild moderate severe small large tiny positive few some multiple scattered known new prior old"""
_STARTS = frozenset(_STARTS_WORDS.split()) | _VERBS
_DRUG_STARTS_WORDS = """start started starting begin began begun continue continued continues continuing resume resumed resuming
switched switch changed change replaced prescribed prescribe add added adding use using"""
_DRUG_STARTS = frozenset(_DRUG_STARTS_WORDS.split())
_STOPS_WORDS = """stop stopped stopping discontinue discontinued discontinuing held hold holding refused refuses declined
declines allergy allergies allergic intolerant intolerance avoid avoided avoiding off quit contraindicated withheld unable"""
_STOPS = frozenset(_STOPS_WORDS.split())
_ALLERGIES = frozenset(("allergy", "allergies", "allergic", "intolerant", "intolerance", "intolerances"))
# "No change in the nodule" and "cannot exclude a nodule" negate no nodule.
_NOT_NEGATED_WORDS = """change changes only increase decrease doubt exclude excluded rule ruled growth progression side
adverse"""
_NOT_NEGATED = frozenset(_NOT_NEGATED_WORDS.split())
_SINGLE = frozenset(("absent", "denied", "denies", "excluded", "negative", "none"))
_SEEN_WORDS = """seen identified present visualized visualised noted found evident demonstrated detected appreciated observed
reported endorsed taken taking tolerated given used needed started resumed continued prescribed any"""
_SEEN = frozenset(_SEEN_WORDS.split())
_SINCE_WORDS = """in on at for since by after before last this yesterday today already"""
_SINCE = frozenset(_SINCE_WORDS.split())
_OPENERS = frozenset(("denies", "denied", "negative", "following"))  # "denies the following:"


def list_tokens(text: str) -> list[str]:
    """Words and marks. A hyphen joins: "non-displaced" is one word, and negates no fracture."""
    return [token.replace("-", "").replace("’", "'") for token in _TOKEN.findall(text.casefold())]


def is_ruled_out(
    left: Sequence[str], right: Sequence[str], own: Collection[str], *, of_drug: bool, is_lenient: bool = False
) -> bool:
    """Whether a name between ``left`` and ``right`` of its sentence is negated; of a drug, whether it is not taken.

    ``own`` are words of the name, which do not negate it. Lenient: also from afar, and by words that may mean it.
    """
    if left and left[-1] == "non" and left[-1] not in own:  # of non-tender, tender
        return True
    return _is_before(left, own, of_drug, is_lenient) or _is_after(right, own, of_drug, is_lenient)


def negates_itself(own: Collection[str]) -> bool:
    """Whether the name says the negation: "unremarkable", "no effusion", "non tender"."""
    return bool((NEGATIONS | NEGATED_WORDS) & {*own})


def _is_before(left: Sequence[str], own: Collection[str], of_drug: bool, is_lenient: bool) -> bool:
    is_active = is_list = has_verb = is_without = False
    since = behind = 0  # words since the last separator, and those since the negation that begin no statement
    for place, token in enumerate(left):
        following = left[place + 1] if place + 1 < len(left) else ""
        if token == ":":
            is_active &= is_list or left[place - 1] in _OPENERS
        elif token in _BREAKS or (of_drug and _begins_drug(token, left[:place])):
            is_active = is_list = False
        elif token not in own and _negates(token, following, left[:place], of_drug):
            is_active, has_verb, since, behind = _is_plain(left[place + 1 :]), False, 0, 0
            is_list, is_without = of_drug and token in _ALLERGIES, token == "without"
        elif token in _SEPARATORS:
            is_active &= is_list or not (has_verb and token in (",", "and"))
            since = 0
        else:
            is_start = place > 0 and left[place - 1] in (",", "and") and (token in _STARTS or token[0].isdigit())
            is_active &= not (is_start and (behind > 0))
            has_verb |= token in _VERBS and behind > 0
            since, behind = since + 1, behind + (token not in _STARTS)
            is_active &= not (is_without and token in _SHOWING)  # "CT without contrast shows a cyst"
            is_active &= is_lenient or since <= _WINDOW
    return is_active


def _begins_drug(token: str, before: Sequence[str]) -> bool:
    """Whether another drug begins here: "stop A and start B", "switched off A to B", but "allergic to B"."""
    if token == "to":
        return not (_ALLERGIES | {"unable"}) & {*before[-1:]}
    return token in _DRUG_STARTS and not _is_governed(before)


def _is_governed(before: Sequence[str]) -> bool:
    """Whether a negation is about the word after these: "did not start", "has not been prescribed"."""
    return bool(NEGATIONS & {*before[-1:]}) or (len(before) > 1 and before[-2] in NEGATIONS and before[-1] not in _SEPARATORS)


def _negates(token: str, following: str, before: Sequence[str], of_drug: bool) -> bool:
    """Of what comes after. Prefixes negate only their own word, as in "uncomplicated appendicitis"."""
    if token in ("free", "clear"):
        return following in ("of", "from")
    if token in ("ruled", "unremarkable"):
        return following == ("out" if token == "ruled" else "for") and not _is_undone(before)
    if token == "excluded" or (of_drug and token in _STOPS):
        return not _is_undone(before)
    return token in NEGATIONS and token != "non"


def _is_undone(before: Sequence[str]) -> bool:
    """Whether the words before undo a negation: "cannot be excluded", "was not stopped", "to be ruled out"."""
    return bool((NEGATIONS | {"be"}) & {*before[-3:]})


def _is_plain(after: Sequence[str]) -> bool:
    """Whether a negation before these words is none of "no change in" or "cannot exclude"."""
    end = next((place for place, token in enumerate(after) if token in (",", ";", ":")), len(after))
    return not _NOT_NEGATED & {*after[: min(end, 3)]}


def _is_after(right: Sequence[str], own: Collection[str], of_drug: bool, is_lenient: bool) -> bool:
    right = right[: _find_end(right, of_drug)]
    if right[:1] == [":"]:
        return right[1:2] in (["none"], ["negative"], ["absent"], ["denied"]) or right[1:] == ["no"]
    is_list, since = False, 0
    for place, token in enumerate(right):
        if token in _SEPARATORS:
            is_list, since = True, 0
            if of_drug and token == "," and _stops(right[place + 1 :]):
                return True
            continue
        if token in own:
            continue
        if token in _VERBS or (since == 0 and not is_list):
            if is_list and token not in _PLURAL and not is_lenient:
                return False
            if _denies(right[place : place + _REACH + 1], of_drug):
                return True
            if token in _VERBS:
                return False
        if token in NEGATIONS:
            return not is_list and _denies(right[place:], of_drug)
        since += 1
        if since > _WINDOW:
            return False
    return False


def _find_end(right: Sequence[str], of_drug: bool) -> int:
    """Where something else begins; of a drug "which we hold" is about the drug itself."""
    for place, token in enumerate(right):
        is_other = of_drug and token in _DRUG_STARTS and place > 0 and right[place - 1] in _SEPARATORS
        if is_other or (token in _BREAKS and not (of_drug and token == "which")):
            return place
    return len(right)


def _stops(words: Sequence[str]) -> bool:
    """Whether a drug before these words is stopped by them: "stopped last week", "which we hold", but no "stopped aspirin"."""
    if words[:1] == ["which"]:
        return any(word in _STOPS and not _is_undone(words[:place]) for place, word in enumerate(words[: _REACH + 1]))
    return bool(_STOPS & {*words[:1]}) and (len(words) == 1 or words[1] in _SINCE)


def _denies(predicate: Sequence[str], of_drug: bool) -> bool:
    """Of words such as "is absent", "was not seen", "has been ruled out", "no longer taken"."""
    words = list(predicate)
    end = next((place for place, word in enumerate(words) if word in (",", ";", ":", "and", "or")), len(words))
    words = words[:end]
    for place, word in enumerate(words):
        before, following = words[:place], words[place + 1 : place + 2]
        if word in _SINGLE and following != ["for"] and not _is_undone(before):
            return True
        if (word == "ruled" and following == ["out"]) or (of_drug and word in _STOPS):
            return not ((NEGATIONS & {*before}) or (word == "ruled" and "be" in before))
        if word == "no" and following == ["longer"]:
            return bool(_SEEN & {*words[place + 2 : place + 4]})
        if word == "not" or word.endswith("n't"):
            return bool(_SEEN & {*words[place + 1 : place + 3]}) and not {"previously", "well", "fully"} & {*words}
    return False
