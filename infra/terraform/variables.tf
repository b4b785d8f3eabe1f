variable "project" {
  description = "Google Cloud project for all resources"
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project is the id of a project: 6 to 30 lower-case letters, digits and hyphens, such as my-hospital."
  }
}

variable "region" {
  description = "Region of buckets and cluster: a single one, so that patient data stay there and reading costs no transfer"
  type        = string
  default     = "europe-west3"
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is a region such as europe-west3, not a zone and not a multi-region."
  }
}

variable "gpu_zones" {
  description = "Zones of the region that offer the GPU"
  type        = list(string)
  default     = ["europe-west3-a", "europe-west3-b"]
  validation {
    condition     = length(var.gpu_zones) > 0 && alltrue([for zone in var.gpu_zones : can(regex("^[a-z]+-[a-z]+[0-9]+-[a-z]$", zone))])
    error_message = "gpu_zones are zones such as europe-west3-a, at least one."
  }
}

variable "archive_bucket" {
  description = "Bucket of the recordings"
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.archive_bucket))
    error_message = "archive_bucket is the name of a bucket, without gs://."
  }
}

variable "create_archive_bucket" {
  description = "Whether to create the bucket of the recordings; for an existing one, only read access is managed here"
  type        = bool
  default     = false
}

variable "lake_bucket" {
  description = "Bucket of the lake, created here"
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.lake_bucket))
    error_message = "lake_bucket is the name of a bucket, without gs://."
  }
}

variable "kms_key" {
  description = "Cloud KMS key for buckets, images and disks, in the same region; null: keys that Google manages"
  type        = string
  default     = null
  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "kms_key is projects/…/locations/…/keyRings/…/cryptoKeys/…, or null."
  }
}

variable "readers" {
  description = "Who may read the lake: group:analysts@my-hospital.org, serviceAccount:…"
  type        = set(string)
  default     = []
  validation {
    condition     = alltrue([for member in var.readers : can(regex("^(group|user|serviceAccount):[^@]+@[^@]+$", member))])
    error_message = "readers are group:…, user:… or serviceAccount:…; never allUsers or allAuthenticatedUsers."
  }
}

variable "cluster_admins" {
  description = "Networks that may reach the cluster's API, in CIDR notation with a name"
  type        = map(string)
  validation {
    condition     = length(var.cluster_admins) > 0 && alltrue([for cidr in values(var.cluster_admins) : can(cidrhost(cidr, 0)) && cidr != "0.0.0.0/0"])
    error_message = "cluster_admins are networks such as { office = \"203.0.113.0/24\" }, at least one, and not the whole internet."
  }
}

variable "cluster_admin_group" {
  description = "Google group whose member groups Kubernetes RBAC knows: gke-security-groups@DOMAIN; null: only users"
  type        = string
  default     = null
  validation {
    condition     = var.cluster_admin_group == null || can(regex("^gke-security-groups@.+$", var.cluster_admin_group))
    error_message = "cluster_admin_group must be named gke-security-groups@DOMAIN, GKE accepts no other."
  }
}

variable "gpu" {
  description = "Machines of the GPU pool; at most those that ../kubernetes/backfill requests, and one for nightly"
  type = object({
    machine_type = optional(string, "g2-standard-8")
    accelerator  = optional(string, "nvidia-l4")
    most_nodes   = optional(number, 5)
  })
  default = {}
  validation {
    condition     = var.gpu.most_nodes >= 1 && var.gpu.most_nodes <= 100
    error_message = "gpu.most_nodes is between 1 and 100."
  }
}

variable "cpu" {
  description = "Machines of the pool for loading and decoding"
  type = object({
    machine_type = optional(string, "n2-standard-16")
    most_nodes   = optional(number, 4)
  })
  default = {}
  validation {
    condition     = var.cpu.most_nodes >= 1 && var.cpu.most_nodes <= 100
    error_message = "cpu.most_nodes is between 1 and 100."
  }
}

variable "reach_internet" {
  description = "NAT for the machines; only downloads from Hugging Face need it: false if acoustic.model is a folder in the image"
  type        = bool
  default     = true
}
