# One identity for each right, bound to a Kubernetes service account of the same name: no keys that could be copied.
locals {
  identities = {
    dictalake-transcribe = "dictalake backfill and nightly: read the archive, write the lake"
    dictalake-maintain   = "dictalake compact and forget: write the lake, nothing of the archive"
  }
  workload_pool = "${var.project}.svc.id.goog"
}

resource "google_service_account" "job" {
  for_each     = local.identities
  account_id   = each.key
  display_name = each.value
}

resource "google_service_account_iam_member" "workload_identity" {
  for_each           = local.identities
  service_account_id = google_service_account.job[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${local.workload_pool}[dictalake/${each.key}]"
  depends_on         = [google_container_cluster.dictalake] # makes the pool
}

resource "google_storage_bucket_iam_member" "transcribe_reads_archive" {
  bucket = local.archive_bucket
  role   = "roles/storage.objectViewer"
  member = google_service_account.job["dictalake-transcribe"].member
}

# objectUser, not objectCreator: Delta overwrites its pointer to the last checkpoint, and runs delete their leases. On Cloud
# Storage both are deletions.
resource "google_storage_bucket_iam_member" "writes_lake" {
  for_each = local.identities
  bucket   = google_storage_bucket.lake.name
  role     = "roles/storage.objectUser"
  member   = google_service_account.job[each.key].member
}

resource "google_storage_bucket_iam_member" "reads_lake" {
  for_each = var.readers
  bucket   = google_storage_bucket.lake.name
  role     = "roles/storage.objectViewer"
  member   = each.value
}

# The machines: logs, metrics and images, but no access to archive or lake.
resource "google_service_account" "nodes" {
  account_id   = "dictalake-nodes"
  display_name = "Machines of the dictalake cluster"
}

resource "google_project_iam_member" "nodes" {
  project = var.project
  role    = "roles/container.defaultNodeServiceAccount"
  member  = google_service_account.nodes.member
}

resource "google_artifact_registry_repository_iam_member" "nodes_pull" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.nodes.member
}

# With your own key, Google's services use it through their agents: storage, registry, disks and the cluster's secrets.
data "google_project" "this" {
  count      = var.kms_key == null ? 0 : 1
  depends_on = [google_project_service.used]
}

resource "google_kms_crypto_key_iam_member" "agent" {
  for_each = var.kms_key == null ? toset([]) : toset([
    "gs-project-accounts",
    "gcp-sa-artifactregistry",
    "compute-system",
    "container-engine-robot",
  ])
  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:service-${data.google_project.this[0].number}@${each.key}.iam.gserviceaccount.com"
}
