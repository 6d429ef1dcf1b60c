"""The schema of what `POST /v1/jobs?dry_run=true` returns, for the OpenAPI document."""

from __future__ import annotations

from typing import Final, get_args

from api.schema.responses import (
    BOOLEAN,
    DATE,
    ETA,
    INTEGER,
    MONEY,
    PRICE,
    TEXT,
    TIME,
    Schema,
    array_of,
    nullable,
    object_of,
    one_of,
    ref,
)
from worker.safety.access import AccessStatus

_DRY_RUN: Final[Schema] = object_of(
    object=one_of("dry_run"),
    model=TEXT,
    cost=object_of(
        currency=TEXT,
        lowest=nullable(MONEY),
        highest=nullable(MONEY),
        reason=nullable(one_of("price_unknown", "output_unbounded")),
        input_tokens=object_of(likely=INTEGER, highest=INTEGER),
        max_output_tokens=nullable(INTEGER),
        fits_cap=BOOLEAN,
        price=nullable(PRICE),
    ),
    access=object_of(
        status=one_of(*get_args(AccessStatus)),
        since=nullable(TIME),
        advice=TEXT,
        skipped=BOOLEAN,
        shutdown_date=nullable(DATE),
    ),
    stand_ins=array_of(
        object_of(
            model=TEXT,
            purpose=one_of("faster", "fallback"),
            effort_accepted=BOOLEAN,
            access=one_of(*get_args(AccessStatus)),
            highest=nullable(MONEY),
        )
    ),
    queue=object_of(position=INTEGER, eta=nullable(ETA), queued=INTEGER, running=INTEGER),
    warnings=array_of(object_of(code=TEXT, detail=TEXT)),
)

DRY_RUN_SCHEMAS: Final[dict[str, Schema]] = {
    "DryRun": _DRY_RUN,
    "JobOrDryRun": {"anyOf": [ref("Job"), ref("DryRun")]},
}
