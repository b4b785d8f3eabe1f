# The archive: read and never written. Usually it exists already and belongs to somebody else.
resource "google_storage_bucket" "archive" {
  # checkov:skip=CKV_GCP_62:the audit log (services.tf) has every access with its identity; usage logs are late and without one
  # checkov:skip=CKV_GCP_63:as above
  count                       = var.create_archive_bucket ? 1 : 0
  name                        = var.archive_bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  # These are originals: an object that was overwritten or deleted by mistake can be restored.
  versioning { enabled = true }

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content { default_kms_key_name = encryption.value }
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
  lifecycle { prevent_destroy = true }
}

data "google_storage_bucket" "archive" {
  count = var.create_archive_bucket ? 0 : 1
  name  = var.archive_bucket
}

locals {
  archive_bucket = var.create_archive_bucket ? google_storage_bucket.archive[0].name : data.google_storage_bucket.archive[0].name
}

resource "google_storage_bucket" "lake" {
  # checkov:skip=CKV_GCP_62:the audit log (services.tf) has every access with its identity; usage logs are late and without one
  # checkov:skip=CKV_GCP_63:as above
  # checkov:skip=CKV_GCP_78:dictalake forget must remove the bytes; an old version would keep a patient's text
  name                        = var.lake_bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  # Erasure: deleted objects are gone at once. Nothing may keep noncurrent, soft-deleted or retained objects. Delta's history
  # restores an older state until compaction removes it. Backups are a separate decision with its own expiry date.
  versioning { enabled = false }
  soft_delete_policy { retention_duration_seconds = 0 }

  # Removes multipart uploads that a killed run left behind.
  lifecycle_rule {
    condition { age = 7 }
    action { type = "AbortIncompleteMultipartUpload" }
  }

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content { default_kms_key_name = encryption.value }
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
  lifecycle { prevent_destroy = true }
}
