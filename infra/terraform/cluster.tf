resource "google_container_cluster" "dictalake" {
  # checkov:skip=CKV_GCP_12:ADVANCED_DATAPATH below enforces network policies; the older add-on cannot be used with it
  name       = "dictalake"
  location   = var.region
  network    = google_compute_network.dictalake.id
  subnetwork = google_compute_subnetwork.nodes.id

  # The pools below replace it.
  remove_default_node_pool = true
  initial_node_count       = 1
  deletion_protection      = true

  release_channel { channel = "REGULAR" }
  maintenance_policy {
    recurring_window {
      # Weekends by day: nightly is over, and an upgrade costs a backfill only the blocks in flight.
      start_time = "2026-01-03T08:00:00Z"
      end_time   = "2026-01-03T16:00:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=SA,SU"
    }
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = false # reached from cluster_admins alone
    master_ipv4_cidr_block  = "172.16.0.0/28"
  }
  master_authorized_networks_config {
    dynamic "cidr_blocks" {
      for_each = var.cluster_admins
      content {
        display_name = cidr_blocks.key
        cidr_block   = cidr_blocks.value
      }
    }
  }
  master_auth {
    client_certificate_config { issue_client_certificate = false }
  }
  dynamic "authenticator_groups_config" {
    for_each = var.cluster_admin_group[*]
    content { security_group = authenticator_groups_config.value }
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = "pods"
    services_secondary_range_name = "services"
  }
  datapath_provider           = "ADVANCED_DATAPATH" # enforces ../kubernetes/base/network-policies.yaml
  enable_intranode_visibility = true
  enable_shielded_nodes       = true

  workload_identity_config { workload_pool = local.workload_pool }

  dynamic "database_encryption" {
    for_each = var.kms_key[*]
    content {
      state    = "ENCRYPTED"
      key_name = database_encryption.value
    }
  }

  # Admits everything until the project's policy says otherwise, for instance only images of registry.tf.
  binary_authorization { evaluation_mode = "PROJECT_SINGLETON_POLICY_ENFORCE" }
  security_posture_config {
    mode               = "BASIC"
    vulnerability_mode = "VULNERABILITY_BASIC"
  }
  cost_management_config { enabled = true }
  # Logs hold recording ids and reasons, never text; a test of the project checks this.
  logging_config { enable_components = ["SYSTEM_COMPONENTS", "WORKLOADS"] }
  monitoring_config {
    enable_components = ["SYSTEM_COMPONENTS"]
    managed_prometheus { enabled = true }
  }

  # Settings of the default pool, which is created and removed at once.
  node_config {
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
    workload_metadata_config { mode = "GKE_METADATA" }
  }
  lifecycle { ignore_changes = [node_config] }

  resource_labels = { app = "dictalake" }
  depends_on      = [google_project_service.used, google_kms_crypto_key_iam_member.agent]
}

locals {
  pools = {
    # For KubeRay's operator, the head with the driver, and compaction: a machine that is always there.
    system = {
      machine_type = "e2-standard-8", spot = false, least = 1, most = 2, disk_gb = 100, zones = null, accelerator = null, taints = []
    }
    cpu = {
      machine_type = var.cpu.machine_type, spot = true, least = 0, most = var.cpu.most_nodes, disk_gb = 200, zones = null, accelerator = null
      taints       = [{ key = "cloud.google.com/gke-spot", value = "true" }]
    }
    gpu = {
      machine_type = var.gpu.machine_type, spot = true, least = 0, most = var.gpu.most_nodes, disk_gb = 200, zones = var.gpu_zones
      accelerator  = var.gpu.accelerator
      # GKE adds the taint nvidia.com/gpu itself to a pool that starts without machines; named, it is there in any case.
      taints = [{ key = "cloud.google.com/gke-spot", value = "true" }, { key = "nvidia.com/gpu", value = "present" }]
    }
  }
}

resource "google_container_node_pool" "pool" {
  for_each       = local.pools
  name           = each.key
  cluster        = google_container_cluster.dictalake.id
  location       = var.region
  node_locations = each.value.zones

  # Limits for the whole region. With limits for each zone, a wrong number of replicas would cost three times as much.
  autoscaling {
    total_min_node_count = each.value.least
    total_max_node_count = each.value.most
    location_policy      = each.value.spot ? "ANY" : "BALANCED" # where spot machines are to be had
  }
  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type      = each.value.machine_type
    spot              = each.value.spot
    image_type        = "COS_CONTAINERD"
    disk_size_gb      = each.value.disk_gb
    disk_type         = "pd-balanced"
    boot_disk_kms_key = var.kms_key
    service_account   = google_service_account.nodes.email
    # The roles of their account decide what the machines may do (identities.tf), as Google recommends.
    oauth_scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    labels       = { "dictalake/pool" = each.key }
    metadata     = { disable-legacy-endpoints = "true" }

    dynamic "guest_accelerator" {
      for_each = each.value.accelerator[*]
      content {
        type  = guest_accelerator.value
        count = 1
        gpu_driver_installation_config { gpu_driver_version = "DEFAULT" }
      }
    }
    dynamic "taint" {
      for_each = each.value.taints
      content {
        key    = taint.value.key
        value  = taint.value.value
        effect = "NO_SCHEDULE"
      }
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
    workload_metadata_config { mode = "GKE_METADATA" }
  }
}
