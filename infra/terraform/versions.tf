terraform {
  required_version = ">= 1.6"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }
  # Where the state is: terraform init -backend-config=bucket=my-hospital-terraform -backend-config=prefix=dictalake
  backend "gcs" {}
}

provider "google" {
  project = var.project
  region  = var.region
}
