"""Keys that a living Vigil has only for moments, for the test that spoils each kind of key."""

from worker.store import keys

FLEETING = {
    **dict.fromkeys((keys.LIMITS, keys.limit_apps("rate:x"), keys.limit_line("rate:x", "acme")), "zset"),
    keys.places("model:default:x"): "set",
    **dict.fromkeys((keys.INCIDENTS, keys.RETENTION_TIMES, keys.MIGRATIONS, keys.PINS, keys.PINNED), "hash"),
    **dict.fromkeys((keys.RETENTION_AGAIN, keys.MIGRATION_LOCK, keys.ARCHIVE, keys.ARCHIVING_LOCK), "string"),
    **dict.fromkeys((keys.READY, keys.LEASED, keys.RING, keys.OUTBOX, keys.SENDING, keys.app_queue("acme")), "zset"),
    **dict.fromkeys((keys.LATER, keys.target_queue("we_x"), keys.ledger("x", "blocks")), "zset"),
    **dict.fromkeys(
        (keys.RING_POSITION, keys.ROUTER_LOCK, keys.SEALING_LOCK, keys.rate("acme"), keys.RETENTION_SEAL), "string"
    ),
    **dict.fromkeys(
        (keys.webhook_refused("job_x"), keys.warning("x"), keys.access_probe_lock("x"), keys.account_state("account")),
        "string",
    ),
    **dict.fromkeys(
        (keys.endpoint_fit("x"), keys.upload("job_x"), keys.relayed("x", "x"), keys.account_scope("x")), "string"
    ),
    **dict.fromkeys((keys.callers("acme", "x"), keys.CONVERSATION + "acme:conv_x"), "hash"),
    **dict.fromkeys(
        (keys.API_PROCESSES, keys.API_HEARTBEATS, keys.relayed("running", "acme"), keys.HOLDING_BACK), "zset"
    ),
    **dict.fromkeys((keys.slots("acme"), keys.PAUSED_TARGETS, keys.CANCELLATION_DUE, keys.UNNOTED_QUARANTINES), "set"),
    **dict.fromkeys((keys.in_flight("we_x"), keys.ALLOWANCE + "to_x"), "hash"),
    **dict.fromkeys((keys.DELAYED + "full:acme", keys.HELD_BACK + "acme", keys.relayed("waiting", "acme")), "zset"),
    **dict.fromkeys((keys.COMPACTION_DUE, keys.OUTPUT_OBJECTS, keys.UNARCHIVED), "zset"),
    **dict.fromkeys((keys.outbox_clock("acme"), keys.OBJECTS_LOCK), "string"),
    keys.text("job_x", 1): "list",
}
"""Keys that need not stand in Redis at the moment when they are listed, with their types: they are made, spoiled."""
