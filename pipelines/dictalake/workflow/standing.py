"""What the rows of a run count: recorded when it begins and when it ends."""

from __future__ import annotations

from dictalake import logs
from dictalake.config.sections import Config
from dictalake.lake.fingerprints import FingerprintLog, keep_what_counts, list_fingerprints, name_operator
from dictalake.lake.superseded import keep_superseded
from dictalake.transcript.provenance import Provenance
from dictalake.workflow.summary import Standing


def record_request(config: Config, provenance: Provenance) -> None:
    """Records what the run's fingerprint stands for, and by which other names its request goes. Raises RunError."""
    log = FingerprintLog(config.lake)
    keep_what_counts(config.lake)
    log.describe(provenance.fingerprint, provenance.parts, provenance.run_id)
    for name in sorted({provenance.named, provenance.spelling} - {provenance.fingerprint, ""}):
        log.add_alias(name, provenance.fingerprint, provenance.run_id)


def settle(config: Config, provenance: Provenance, *, promote: bool, is_complete: bool) -> Standing:
    """Promotes what the run was asked to, and finds out what was replaced; says what the run's rows count now.

    The first run of a lake makes its fingerprint production. Raises RunError.
    """
    log, fingerprint = FingerprintLog(config.lake), provenance.fingerprint
    if fingerprint in list_fingerprints(config.lake):
        log.promote_first(fingerprint, provenance.run_id)
        if promote and is_complete:
            log.promote(fingerprint, run_id=provenance.run_id, promoted_by=name_operator())
        elif promote:
            line = f"{fingerprint} was not promoted: other runs are still at work on recordings that this run left to them"
            logs.log_event("not_promoted", line, level=logs.WARNING)
    keep_superseded(config.lake)
    promoted = log.read().promoted
    if not promoted or fingerprint in promoted[0]:
        return "production"
    return "earlier" if any(fingerprint in names for names in promoted) else "experiment"
