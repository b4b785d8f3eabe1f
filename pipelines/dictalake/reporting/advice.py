"""What to do about each reason for which a recording failed."""

from __future__ import annotations

ADVICE = {
    "access_denied": "The credentials may not read the object: give them the right, then --retry-failed access_denied.",
    "changed_during_read": "The object was replaced while it was read: the new version is a new recording for the next run.",
    "corrupt_audio": "The container is known, its content cannot be decoded: fetch the original again.",
    "credentials_expired": "Log in again or renew the token, then --retry-failed.",
    "decoder_crashed": "The decoder's process died on it, twice: look at the file with care, it may be an attack.",
    "decoder_failed": "A fault of dictalake: error.detail names the place, please report it.",
    "decoder_timeout": "Decoding took longer than limits.decode_s: mostly a damaged file; else raise the limit.",
    "empty_object": "The object has no bytes, the upload or the recorder stopped early: upload it again.",
    "erased": "It was erased with dictalake forget; nothing to do.",
    "expands_too_large": "It unpacks to more than limits.expanded_mb: an attack, or an archive to split.",
    "fetch_failed": "The storage failed again and again: look at the network and the storage, then --retry-failed.",
    "internal_error": "A defect of dictalake: error.detail names the place, please report it.",
    "model_failed": "The model failed on it: --retry-failed; if it fails again, please report the place in error.detail.",
    "no_audio": "No samples, or a DICOM object without a waveform and without an audio file in it: nothing to transcribe.",
    "not_audio": "Not sound, whatever the name says: leave such files out with archive.include.",
    "not_found": "It is gone since it was listed: nothing to do, unless somebody deletes what they should not.",
    "object_too_large": "More than limits.object_mb: split it, or raise the limit and try again.",
    "too_large": "Decoding wants more memory than limits.decode_mb: mostly a damaged header; else raise the limit.",
    "too_long": "Longer than limits.duration_h: split it, or raise the limit, then --retry-failed too_long.",
    "too_many_channels": "More channels than limits.channels: split it, or raise the limit and try again.",
    "too_many_members": "More files in it than limits.members: split it, or raise the limit and try again.",
    "too_many_windows": "More windows, all channels together, than limits.windows: split it, or raise the limit and try again.",
    "unsupported_codec": "The coding inside is not read: convert it; error.detail names it.",
    "unsupported_container": "Nothing free reads this kind (DS2, an encrypted file): export it as error.detail says.",
    "worker_crashed": "Its worker died again and again: too large for the worker's memory, or a defect of a library; "
    "--retry-failed with larger ray.*_memory_mb.",
}
UNKNOWN = "A reason that this version does not know: look at error.detail."
