"""The object store: a real S3 server over a socket, and a folder of this machine."""

from __future__ import annotations

import asyncio
import os
import traceback
from pathlib import Path

import pytest
from s3_server import HASTY, S3Server, free_port

from worker.object_store.address import StoreAddress
from worker.object_store.errors import AccessDenied, BucketNotFound, ObjectStoreError, ObjectTooLarge, StoreUnreachable
from worker.object_store.object_store import ObjectStore
from worker.object_store.opening import open_object_store
from worker.object_store.store_keys import StoreKeys


@pytest.fixture(params=["s3", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind that can be run here."""
    if request.param == "file":
        return open_object_store(StoreAddress("file", "", str(tmp_path / "kept").strip("/")), StoreKeys())
    server: S3Server = request.getfixturevalue("s3")
    bucket = f"b-{os.urandom(6).hex()}"
    server.make_bucket(bucket)
    return server.open(bucket, "some/prefix")


async def test_an_object_is_written_once_and_read_back(store: ObjectStore) -> None:
    assert await store.put_if_absent("a/1", b"first")
    assert await store.put_if_absent("a/1", b"first")  # again, as after a lost answer
    assert not await store.put_if_absent("a/1", b"other")
    assert not await store.put_if_absent("a/1", b"much longer than the first")
    assert await store.get("a/1", 100) == b"first"
    found = await store.head("a/1")
    assert found is not None
    assert (found.name, found.size) == ("a/1", 5)


async def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    assert await store.put_if_absent("empty", b"")
    assert await store.put_if_absent("empty", b"")
    assert not await store.put_if_absent("empty", b"x")
    assert await store.get("empty", 10) == b""
    assert [part async for part in store.chunks("empty")] in ([], [b""])


async def test_of_several_writers_of_a_name_one_wins(store: ObjectStore) -> None:
    won = await asyncio.gather(*(store.put_if_absent("seal", b"writer %d" % n) for n in range(8)))
    assert won.count(True) == 1
    assert await store.get("seal", 100) == b"writer %d" % won.index(True)


async def test_what_is_missing_is_none_and_no_error(store: ObjectStore) -> None:
    assert await store.get("no/such", 10) is None
    assert await store.head("no/such") is None
    assert [part async for part in store.chunks("no/such")] == []
    assert await store.list_page("no") == []
    await store.delete("no/such")


async def test_an_object_is_put_in_the_place_of_another_and_deleted(store: ObjectStore) -> None:
    await store.put("x", b"1")
    await store.put("x", b"2")
    assert await store.get("x", 10) == b"2"
    await store.delete("x")
    assert await store.get("x", 10) is None


async def test_a_large_object_is_read_in_chunks_and_never_whole_by_mistake(store: ObjectStore) -> None:
    content = os.urandom(3_000_000)
    assert await store.put_if_absent("large", content)
    parts = [part async for part in store.chunks("large")]
    assert b"".join(parts) == content
    assert max(map(len, parts)) < 1_500_000
    with pytest.raises(ObjectTooLarge, match="larger than 1,000,000 bytes"):
        await store.get("large", 1_000_000)


async def test_names_are_listed_in_order_page_by_page(store: ObjectStore) -> None:
    names = [f"m/{n:04d}" for n in range(25)]
    for name in [*reversed(names), "other/1"]:
        await store.put_if_absent(name, b"x")
    found: list[str] = []
    while page := await store.list_page("m", found[-1] if found else "", limit=10):
        found += [one.name for one in page]
    assert found == names


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/./b", "a b", "a/", "ä", "a\n"])
async def test_a_name_that_no_object_may_have_is_refused(store: ObjectStore, name: str) -> None:
    for call in (store.get(name, 1), store.put(name, b""), store.put_if_absent(name, b""), store.delete(name)):
        with pytest.raises(ValueError, match="an object has a name"):
            await call


async def test_a_missing_bucket_is_named(s3: S3Server) -> None:
    store = s3.open("no-such-bucket")
    for call in (store.get("x", 1), store.head("x"), store.put_if_absent("x", b""), store.list_page("x")):
        try:
            found = await call
        except BucketNotFound as error:
            assert "bucket not found" in str(error)  # noqa: PT017
        else:
            assert found is None  # a HEAD has no body that says so


async def test_refused_keys_are_access_denied_and_never_shown(s3: S3Server) -> None:
    s3.make_bucket("guarded")
    content = bytes(range(97, 123))
    with s3.checks_keys():
        store = s3.open("guarded")
        with pytest.raises(AccessDenied, match="access denied") as raised:
            await store.put_if_absent("x", content)
    shown = "".join(traceback.format_exception(raised.value)) + repr(vars(raised.value))
    for secret in ("made-up-secret", "AKIATEST", "Authorization", "abcdefgh", "Signature="):
        assert secret not in shown


async def test_a_store_that_does_not_answer_is_unreachable_within_the_patience(s3: S3Server) -> None:
    s3.make_bucket("silent")
    store, begun = s3.open("silent", patience=HASTY), asyncio.get_running_loop().time()
    with s3.silent():
        for call in (store.get("x", 1), store.put_if_absent("x", b"1"), store.list_page("x"), store.delete("x")):
            with pytest.raises(StoreUnreachable, match="unreachable"):
                await call
    assert asyncio.get_running_loop().time() - begun < 60
    assert await s3.open("silent").put_if_absent("x", b"1")


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    keys = {"access_key_id": "a", "secret_access_key": "b", "endpoint": f"http://127.0.0.1:{free_port()}"}
    store = open_object_store(StoreAddress("s3", "bucket", ""), StoreKeys(s3=keys), HASTY)
    with pytest.raises(StoreUnreachable, match="read x: unreachable"):
        await store.get("x", 1)


async def test_a_write_once_bucket_keeps_what_was_written(s3: S3Server) -> None:
    s3.make_bucket("locked", write_once=True, undeletable=True)
    store = s3.open("locked")
    assert await store.put_if_absent("a", b"1")
    assert not await store.put_if_absent("a", b"2")
    with pytest.raises(AccessDenied):
        await store.delete("a")
    found = await store.head("a")
    assert found is not None
    assert found.version


async def test_where_nobody_may_delete_a_delete_is_refused(s3: S3Server) -> None:
    s3.make_bucket("undeletable", undeletable=True)
    store = s3.open("undeletable")
    assert await store.put_if_absent("a", b"1")
    with pytest.raises(AccessDenied, match="delete a: access denied"):
        await store.delete("a")
    assert await store.get("a", 10) == b"1"


async def test_a_folder_that_is_gone_or_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ObjectStoreError, match="open file:///"):
        open_object_store(StoreAddress("file", "", str(tmp_path / "file" / "deeper").strip("/")), StoreKeys())


def test_a_store_is_shown_without_its_keys(s3: S3Server) -> None:
    keys = StoreKeys(s3={"secret_access_key": "made-up-secret"})
    assert "made-up-secret" not in repr(keys)
    assert "made-up-secret" not in repr(s3.open("any-bucket"))
