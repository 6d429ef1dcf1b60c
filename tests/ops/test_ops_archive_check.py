"""What `vigil doctor` says of the archive, tried out on real buckets."""

from __future__ import annotations

import pytest
from s3_server import S3Server

from worker.cli.doctor.archive_check import archive_check
from worker.clock import Clock
from worker.settings import Settings


def settings(s3: S3Server, address: str | None, **more: object) -> Settings:
    return Settings(_env_file=None, archive=address, **{**s3.environment, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bucket", "kind", "sentence"),
    [
        ("doctor-plain", {}, "whoever has these keys can delete objects"),
        ("doctor-refusing", {"undeletable": True}, "write-once: nobody with these keys deletes"),
        ("doctor-locked", {"write_once": True}, "it keeps versions"),
    ],
)
async def test_it_says_what_a_bucket_does_with_objects(redis, s3, bucket: str, kind: dict[str, bool], sentence: str):
    s3.make_bucket(bucket, **kind)
    for _ in range(2):
        check = await archive_check(redis, Clock(), settings(s3, f"s3://{bucket}/vigil"))
        assert (check.state, sentence in check.detail) == ("ok", True), check


async def test_it_names_a_bucket_that_is_missing_and_a_folder(redis, s3, tmp_path):
    check = await archive_check(redis, Clock(), settings(s3, "s3://doctor-none/vigil"))
    assert check.state == "problem"
    assert "bucket not found" in check.detail
    assert "made-up-secret" not in str(check)
    assert (await archive_check(redis, Clock(), settings(s3, f"file://{tmp_path}/archive"))).state == "ok"


async def test_without_an_archive_it_says_where_the_trail_is(redis, s3):
    assert "stays in Redis" in (await archive_check(redis, Clock(), settings(s3, None))).detail
