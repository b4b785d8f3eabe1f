resource "google_compute_network" "dictalake" {
  # checkov:skip=CKV2_GCP_18:no rules means no way in; GKE makes and keeps the rules that the cluster needs
  name                    = "dictalake"
  auto_create_subnetworks = false
  depends_on              = [google_project_service.used]
}

resource "google_compute_subnetwork" "nodes" {
  name                     = "dictalake-nodes"
  network                  = google_compute_network.dictalake.id
  region                   = var.region
  ip_cidr_range            = "10.10.0.0/22"
  private_ip_google_access = true # Cloud Storage without an address in the internet

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = "10.20.0.0/16"
  }
  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = "10.30.0.0/20"
  }

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_router" "dictalake" {
  count   = var.reach_internet ? 1 : 0
  name    = "dictalake"
  network = google_compute_network.dictalake.id
  region  = var.region
}

resource "google_compute_router_nat" "dictalake" {
  count                              = var.reach_internet ? 1 : 0
  name                               = "dictalake"
  router                             = google_compute_router.dictalake[0].name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"

  subnetwork {
    name                    = google_compute_subnetwork.nodes.id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}
