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
  # an event of ours that is an issue (tag vigil.event) => how many within five minutes are worth waking somebody
  page = {
    "access.skipped" = 0
    "circuit.opened" = 0
    "queue.stuck"    = 0
    "store.changed"  = 0
    "worker.broke"   = 2
  }
  ticket = {
    "lease.lost"        = 0
    "webhook.exhausted" = 0
    "account.state"     = 0
    "run.broke"         = 0
    "sweep.stuck"       = 0
    "webhook.fault"     = 0
    "webhook.unmade"    = 0
    "notice.broke"      = 0
    "audit.unsealed"    = 0
    "record.unreadable" = 0
    "round.broke"       = 0
    "api.broke"         = 0
    "record.unreadable" = 0
    "round.broke"       = 0
  }
  runbook = "ops/runbook/README.md"
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
  query               = "vigil.event:${each.key}"
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
      fields     = ["vigil.event", "count()"]
      columns    = ["vigil.event"]
      aggregates = ["count()"]
      conditions = "has:vigil.event"
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
      conditions = "vigil.event:[access.skipped,circuit.opened,account.state]"
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
      conditions = "vigil.event:[run.broke,worker.broke,api.broke,sweep.stuck,webhook.fault,webhook.unmade,notice.broke]"
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
