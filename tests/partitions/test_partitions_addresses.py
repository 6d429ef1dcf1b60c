"""VIGIL_REDIS_URL names one store or several; whatever is wrong with it is said without a secret."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from worker.jobs import ids
from worker.partitions import HOME, choose, code_of, parse_partitions, partition_of_job
from worker.redis_address import AddressError
from worker.settings import Settings

URLS = "redis://u:secret@a:6379/0  b=rediss://u:secret@b:6379, c=redis+sentinel://u:secret@s:1,t:2/svc/3"


def test_one_address_is_home_and_is_used_as_it_is_written() -> None:
    (only,) = parse_partitions("redis://u:secret@a:6379/0")
    assert (only.name, only.url, only.code) == (HOME, "redis://u:secret@a:6379/0", "")
    (named,) = parse_partitions("main=redis://a")
    assert (named.name, named.url) == ("main", "redis://a")
    settings = Settings(_env_file=None, redis_url="main=redis://a")
    assert settings.store_url == settings.of(settings.partition).redis_url == "redis://a"


def test_several_addresses_are_partitions_with_names() -> None:
    found = parse_partitions(URLS)
    assert [one.name for one in found] == [HOME, "b", "c"]
    assert [one.code for one in found] == ["", code_of("b"), code_of("c")]
    assert found[2].url == "redis+sentinel://u:secret@s:1,t:2/svc/3"
    assert "secret" not in repr(found)


def test_two_hash_tags_of_one_cluster_are_two_partitions() -> None:
    found = parse_partitions("redis+cluster://n1:6379,n2:6379/home b=redis+cluster://n1:6379,n2:6379/b")
    assert [one.name for one in found] == [HOME, "b"]
    with pytest.raises(AddressError, match="one database"):
        parse_partitions("redis+cluster://n1:6379/same b=redis+cluster://n1:6379/same")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redis://h redis://i", "address 2 of 2 has no name"),
        ("redis://h B=redis://i", "a name that is none"),
        ("a=redis://h a=redis://i", "names two stores a"),
        ("redis://h b=redis://h:6379/0", "names one database as home and as b"),
        ("redis://h b=redis://u:se/cret@i", "address 2 of 2 the password"),
        ("redis://:se cret@h", "write a space as %20"),
        ("redis+sentinel://a:1, b:2/svc", "write a space as %20"),
    ],
)
def test_what_is_wrong_is_said_without_a_secret(text: str, message: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_partitions(text)
    assert message in str(caught.value)
    assert "cret" not in str(caught.value)


def test_names_whose_ids_would_be_alike_are_refused() -> None:
    names: dict[str, str] = {}
    for number in range(5_000):
        twin = names.setdefault(code_of(f"n{number}"), f"n{number}")
        if twin != f"n{number}":
            break
    with pytest.raises(AddressError, match="ids alike"):
        parse_partitions(f"redis://h {twin}=redis://i n{number}=redis://j")


def test_an_id_names_its_partition_and_keeps_its_time() -> None:
    found = parse_partitions(URLS)
    plain = ids.new_id("job", 1_790_000_000_000, bytes(10))
    for one in found:
        job_id = plain + one.code
        assert ids.is_job_id(job_id)
        assert ids.time_ms(job_id) == 1_790_000_000_000
        assert partition_of_job(job_id, found) == one
        assert ids.job_id_of(ids.response_id_of(job_id)) == job_id
    assert partition_of_job(plain + code_of("gone"), found) is None
    assert not ids.is_job_id(plain + "zz")
    assert not ids.is_job_id(plain + "uuu")


def test_one_more_partition_takes_its_share_of_new_apps_and_no_other() -> None:
    apps = [f"app-{number}" for number in range(2_000)]
    before = {app: choose(app, ["home", "b", "c"]) for app in apps}
    after = {app: choose(app, ["home", "b", "c", "d"]) for app in apps}
    assert {after[app] for app in apps if after[app] != before[app]} == {"d"}
    assert all(400 < count < 600 for count in Counter(after.values()).values())


def test_each_partition_has_its_own_files(tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None, redis_url=URLS, data_dir=tmp_path, audit_checkpoints=tmp_path / "checkpoints.ndjson"
    )
    home, b, _ = (settings.of(one) for one in settings.partitions)
    assert home.mark_file == tmp_path / "store.external.json"
    assert b.mark_file == tmp_path / "store.external.b.json"
    assert home.audit_checkpoints == tmp_path / "checkpoints.ndjson"
    assert b.audit_checkpoints == tmp_path / "checkpoints.b.ndjson"
    folder = Settings(_env_file=None, redis_url=URLS, data_dir=tmp_path, audit_checkpoints=tmp_path)
    assert folder.of(folder.partitions[1]).audit_checkpoints == tmp_path / "checkpoints.b.ndjson"
