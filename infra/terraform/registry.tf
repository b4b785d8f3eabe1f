resource "google_artifact_registry_repository" "images" {
  repository_id = "dictalake"
  location      = var.region
  format        = "DOCKER"
  kms_key_name  = var.kms_key
  depends_on    = [google_project_service.used, google_kms_crypto_key_iam_member.agent]

  # Provenance names the commit of an image: the same tag may not become other code.
  docker_config { immutable_tags = true }
}
