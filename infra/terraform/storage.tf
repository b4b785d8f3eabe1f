# The archive: read and never written. Usually it is there already and belongs to somebody else.
resource "google_storage_bucket" "archive" {
  # checkov:skip=CKV_GCP_62:the audit log (services.tf) has every access with its identity; usage logs are late and without one
  # checkov:skip=CKV_GCP_63:as above
  count                       = var.create_archive_bucket ? 1 : 0
  name                        = var.archive_bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  # Originals: what is overwritten or deleted by mistake comes back.
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
  # checkov:skip=CKV_GCP_78:dictalake forget must remove the bytes; a version kept behind is a patient's text kept behind
  name                        = var.lake_bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  # Erasure: deleted is gone, at once. Nothing may keep noncurrent versions, soft-deleted objects or retained ones; Delta's own
  # history is what brings back an older state until compaction removes it, and backups are a decision with a date of their own.
  versioning { enabled = false }
  soft_delete_policy { retention_duration_seconds = 0 }

  # Uploads in parts that a killed run left.
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
