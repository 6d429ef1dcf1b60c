# Sentry's side of being watched: who is told of which of Vigil's issues, and a dead-man's switch. For the provider
# jianyuan/sentry 0.15. Checked here for its syntax and against our own table of issues; never applied.
#   terraform init && terraform apply -var organization=… -var project=… -var team=…

terraform {
  required_providers {
    sentry = {
      source  = "jianyuan/sentry"
      version = "~> 0.15"
    }
  }
}

variable "organization" { type = string }
variable "project" { type = string }
variable "team" {
  type        = string
  description = "The internal id of the team that is told."
}
variable "environment" {
  type    = string
  default = "production"
}

locals {
  # a cause of ours (tag vigil.cause; README.md lists them) => how many events within five minutes are worth waking
  # somebody: few are sent, each for any number of occurrences
  page = {
    "access-lost"      = 0
    "account-at-fault" = 0
    "job-lost"         = 0
    "queue-stuck"      = 0
    "store-away"       = 0
    "store-changed"    = 0
    "worker.broke"     = 2
  }
  ticket = {
    "answer-too-large"  = 0
    "api.broke"         = 0
    "audit-unarchived"  = 0
    "audit-unsealed"    = 0
    "checks-widened"    = 0
    "content-damaged"   = 0
    "endpoint-disabled" = 0
    "endpoint-failing"  = 0
    "job-checked"       = 0
    "job-expired"       = 0
    "job-failed"        = 0
    "job-waited"        = 0
    "key-missing"       = 0
    "lease-lost"        = 0
    "models.broke"      = 0
    "notice.broke"      = 0
    "record-unreadable" = 0
    "records-refused"   = 0
    "round.broke"       = 0
    "run.broke"         = 0
    "sweep.stuck"       = 0
    "webhook-dead"      = 0
    "webhook-gone"      = 0
    "webhook.fault"     = 0
    "webhook.unmade"    = 0
  }
  runbook = "ops/sentry/README.md"
}

resource "sentry_metric_monitor" "issue" {
  for_each = merge(local.page, local.ticket)

  organization        = var.organization
  project             = var.project
  environment         = var.environment
  name                = "Vigil: ${each.key}"
  description         = "See ${local.runbook}"
  owner               = { team_id = var.team }
  aggregate           = "count()"
  dataset             = "events"
  event_types         = ["default", "error"]
  query               = "vigil.cause:${each.key}"
  query_type          = "error"
  time_window_seconds = 300

  condition_group = {
    conditions = [
      {
        type             = "gt"
        comparison       = each.value
        condition_result = contains(keys(local.page), each.key) ? 75 : 50
      },
      {
        type             = "lte"
        comparison       = each.value
        condition_result = 0
      },
    ]
  }
  issue_detection = { type = "static" }
}

# Both check in once a minute; when nobody does, nobody works.
resource "sentry_cron_monitor" "heart" {
  for_each = toset(["vigil-sweeper", "vigil-worker"])

  organization            = var.organization
  project                 = var.project
  name                    = each.key
  owner                   = { team_id = var.team }
  checkin_margin_minutes  = 2
  failure_issue_threshold = 1
  max_runtime_minutes     = 2
  recovery_threshold      = 1
  timezone                = "UTC"
  schedule = {
    interval_value = 1
    interval_unit  = "minute"
  }
}

resource "sentry_alert" "page" {
  organization      = var.organization
  name              = "Vigil: now"
  environment       = var.environment
  frequency_minutes = 30
  monitor_ids = concat(
    [for name in keys(local.page) : sentry_metric_monitor.issue[name].id],
    [for one in sentry_cron_monitor.heart : one.id],
  )
  trigger_conditions = ["first_seen_event", "reappeared_event", "regression_event"]
  action_filters = [{
    logic_type = "all"
    actions = [{
      email = {
        target_type       = "Team"
        target_identifier = var.team
        fallthrough_type  = "AllMembers"
      }
    }]
  }]
}

resource "sentry_alert" "ticket" {
  organization       = var.organization
  name               = "Vigil: today"
  environment        = var.environment
  frequency_minutes  = 1440
  monitor_ids        = [for name in keys(local.ticket) : sentry_metric_monitor.issue[name].id]
  trigger_conditions = ["first_seen_event", "regression_event"]
  action_filters = [{
    logic_type = "all"
    actions = [{
      email = {
        target_type       = "Team"
        target_identifier = var.team
        fallthrough_type  = "AllMembers"
      }
    }]
  }]
}

resource "sentry_dashboard" "vigil" {
  organization = var.organization
  title        = "Vigil"

  widget {
    title        = "Issues of Vigil"
    display_type = "line"
    interval     = "5m"
    widget_type  = "discover"
    query {
      fields     = ["vigil.cause", "count()"]
      columns    = ["vigil.cause"]
      aggregates = ["count()"]
      conditions = "has:vigil.cause"
      order_by   = "-count()"
    }
    layout {
      x     = 0
      y     = 0
      w     = 4
      h     = 2
      min_h = 2
    }
  }

  widget {
    title        = "Access and account"
    display_type = "table"
    interval     = "5m"
    widget_type  = "discover"
    query {
      fields     = ["model", "status", "code", "count()"]
      columns    = ["model", "status", "code"]
      aggregates = ["count()"]
      conditions = "vigil.cause:[access-lost,account-at-fault,checks-widened]"
      order_by   = "-count()"
    }
    layout {
      x     = 4
      y     = 0
      w     = 2
      h     = 2
      min_h = 2
    }
  }

  widget {
    title        = "Faults of ours, by place"
    display_type = "table"
    interval     = "5m"
    widget_type  = "discover"
    query {
      fields     = ["error", "at", "release", "count()"]
      columns    = ["error", "at", "release"]
      aggregates = ["count()"]
      conditions = "vigil.cause:[run.broke,worker.broke,api.broke,sweep.stuck,webhook.fault,webhook.unmade,notice.broke,models.broke,round.broke]"
      order_by   = "-count()"
    }
    layout {
      x     = 0
      y     = 2
      w     = 6
      h     = 2
      min_h = 2
    }
  }
}
