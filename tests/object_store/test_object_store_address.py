"""The address of the archive, and its settings."""

from __future__ import annotations

import pytest

from worker.jobs.errors import SettingsError
from worker.object_store.address import BadAddress, StoreAddress, parse_address
from worker.settings_loader import load


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://bucket", ("s3", "bucket", "")),
        ("s3://my.bucket-1/some/prefix/", ("s3", "my.bucket-1", "some/prefix")),
        ("gs://a_bucket/x", ("gs", "a_bucket", "x")),
        ("az://container/x", ("az", "container", "x")),
        ("file:///var/lib/vigil/archive/", ("file", "", "var/lib/vigil/archive")),
    ],
)
def test_an_address_has_a_scheme_a_bucket_and_a_prefix(text: str, parts: tuple[str, str, str]) -> None:
    address = parse_address(text)
    assert (address.scheme, address.bucket, address.prefix) == parts
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("bucket", "must be one of s3://"),
        ("http://bucket/x", "must be one of"),
        ("s3:/bucket", "must be one of"),
        ("s3://", "names no bucket"),
        ("s3://B", "names no bucket"),
        ("s3://AKIAX:hidden@bucket/x", "holds a user or a key"),
        ("s3://bucket/x?region=eu", "has options"),
        ("s3://bucket/a/../b", "prefix with other signs"),
        ("s3://bucket/a b", "prefix with other signs"),
        ("az://a--b", "names no container|names no bucket"),
        ("file://relative", "absolute path"),
        ("file:///", "absolute path"),
        ("file:///a/../b", "absolute path"),
    ],
)
def test_a_wrong_address_says_which_part_is_wrong_and_shows_no_key(
    text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadAddress, match=why):
        parse_address(text)
    monkeypatch.setenv("VIGIL_ARCHIVE", text)
    with pytest.raises(SettingsError, match="VIGIL_ARCHIVE: ") as raised:
        load()
    assert "hidden" not in str(raised.value)


def test_the_settings_give_the_keys_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_ARCHIVE", "s3://bucket/prefix")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    settings = load()
    assert settings.archive_address == StoreAddress("s3", "bucket", "prefix")
    assert settings.archive_keys.s3["secret_access_key"] == "made-up-secret"
    assert "made-up-secret" not in repr(settings)


def test_an_endpoint_with_a_user_in_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hidden@127.0.0.1:9000")
    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL: must be an http") as raised:
        load()
    assert "hidden" not in str(raised.value)
