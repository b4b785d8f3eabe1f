output "cluster" {
  description = "For kubectl"
  value       = "gcloud container clusters get-credentials ${google_container_cluster.dictalake.name} --region ${var.region} --project ${var.project}"
}

output "archive_uri" {
  description = "archive.uri of ../kubernetes/base/config.yaml"
  value       = "gs://${local.archive_bucket}"
}

output "lake_uri" {
  description = "lake.uri of ../kubernetes/base/config.yaml"
  value       = "gs://${google_storage_bucket.lake.name}/speech"
}

output "service_accounts" {
  description = "Annotations of ../kubernetes/base/service-accounts.yaml"
  value       = { for name, account in google_service_account.job : name => account.email }
}

output "image" {
  description = "Name of the image, without its tag"
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.name}/dictalake"
}
