"""Pages and sums over partitions: nothing is missing or shown twice, whatever page is asked for."""

from __future__ import annotations

from collections import Counter

from api.runtime import partition_sums as sums
from worker.safety.loss_counts import JOBS
from worker.store.end_users.end_user_ledger import FlaggedEndUser, merged_end_users
from worker.store.stats.loss_report import LossGroup, LossPage, LossQuery, merged_page
from worker.store.stats.metrics import ScaleDemand
from worker.telemetry.metrics import Sample

Rows = list[tuple[LossGroup, Counter[str]]]


def page_of(rows: Rows, query: LossQuery) -> LossPage:
    """Return what one store answers to a query from the first row on."""
    shown = rows[: query.offset + query.limit]
    totals = sum((counts for _, counts in rows), Counter[str]())
    return LossPage(
        shown, totals, totals - sum((counts for _, counts in shown), Counter[str]()), len(rows) > len(shown)
    )


def test_pages_of_a_report_are_the_sums_of_all_stores() -> None:
    weeks = [f"2026-W{number:02}" for number in range(1, 10)]
    first: Rows = [(LossGroup(week=week, model="m"), Counter({JOBS: 1})) for week in weeks]
    second: Rows = [(LossGroup(week=week, model="m"), Counter({JOBS: 10})) for week in weeks[::2]]
    found: Rows = []
    for offset in range(0, 12, 4):
        query = LossQuery(weeks, None, ("week", "model"), limit=4, offset=offset)
        page = merged_page([page_of(first, query), page_of(second, query)], query)
        found += page.rows
        assert page.totals == Counter({JOBS: 59})
        assert page.more is (offset < 8)
    assert [(group.week, counts[JOBS]) for group, counts in found] == [
        (week, 11 if number % 2 == 0 else 1) for number, week in enumerate(weeks)
    ]


def test_pages_of_end_users_show_each_once() -> None:
    def rows(app: str, count: int) -> Rows:
        return [(LossGroup(app=app, end_user=f"u{number}"), Counter({JOBS: 1})) for number in range(count)]

    first, second = rows("alpha", 5), rows("beta", 2)
    found = list[tuple[str | None, str | None]]()
    for offset in range(0, 9, 3):
        query = LossQuery(["2026-W01"], None, ("app", "end_user"), limit=3, offset=offset)
        page = merged_page([page_of(first, query), page_of(second, query)], query)
        found += [(group.app, group.end_user) for group, _ in page.rows]
    assert len(found) == len(set(found)) == 7
    assert found[:3] == [("alpha", "u0"), ("beta", "u0"), ("alpha", "u1")]


def test_the_newest_end_users_of_all_stores_come_first() -> None:
    def flagged(app: str, newest: int) -> FlaggedEndUser:
        return FlaggedEndUser(app, f"{newest:064}", newest, {}, {}, None, None)

    first = ([flagged("alpha", 9), flagged("alpha", 5)], "more")
    second = ([flagged("beta", 7)], None)
    page, following = merged_end_users([first, second], 2)
    assert [(one.app, one.newest_ms) for one in page] == [("alpha", 9), ("beta", 7)]
    assert following is not None
    assert merged_end_users([([], None), second], 2) == (second[0], None)


def test_every_worker_counts_once_and_demand_adds_up() -> None:
    beat = {"beat_at": "2026-01-01T00:00:00.000Z", "draining": False, "slots": 10}
    alive = sums.workers(
        [
            [{"id": "w1", "running": 2, **beat}, {"id": "w2", "running": 0, **beat}],  # type: ignore[typeddict-item]
            [{"id": "w1", "running": 3, **beat}],  # type: ignore[typeddict-item]
        ]
    )
    assert [(one["id"], one["running"], one["slots"]) for one in alive] == [("w1", 5, 10), ("w2", 0, 10)]
    whole = sums.demand([ScaleDemand(4, 2, 2, 0, 2, 20, None), ScaleDemand(3, 0, 3, 1, 1, 10, "circuit_open")], alive)
    assert (whole.wanted, whole.ready, whole.running, whole.held) == (7, 2, 5, 1)
    assert (whole.workers, whole.slots, whole.held_back) == (2, 20, None)


def test_metrics_add_up_and_those_of_a_store_have_its_name() -> None:
    def of(queued: int, state: str) -> list[Sample]:
        return [
            ("vigil_redis_up", {}, 1),
            ("vigil_queue_depth", {"state": "queued"}, queued),
            ("vigil_workers_alive", {}, 3),
            *(
                ("vigil_account_state", {"account": one, "provider_account": "default"}, one == state)
                for one in ("normal", "elevated", "widened")
            ),
        ]

    found = {
        (name, *sorted(labels.values())): value
        for name, labels, value in sums.samples({"home": of(2, "normal"), "b": of(5, "elevated")})
    }
    assert found["vigil_redis_up", "home"] == found["vigil_redis_up", "b"] == 1
    assert (found["vigil_queue_depth", "queued"], found["vigil_workers_alive",]) == (7, 3)
    states = {one: found["vigil_account_state", *sorted((one, "default"))] for one in ("normal", "elevated", "widened")}
    assert states == {"normal": False, "elevated": True, "widened": False}
