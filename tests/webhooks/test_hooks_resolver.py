"""Names of receivers: nobody waits for the hostile name servers of another app, domain or name."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, strategies as st
from name_server import NameServer
from waiting import until

from worker.webhooks.guard import AddressPolicy, check_url
from worker.webhooks.lookup_places import MAX_LOOKUPS, LookupPlaces
from worker.webhooks.name_lookup import CaresLookup, ThreadLookup
from worker.webhooks.registrable_domain import receiver_of, registrable_domain
from worker.webhooks.resolver import SystemResolver

GOOD = "192.0.2.7"


def silent_about_evil(name: str) -> str | None:
    return None if "evil" in name else GOOD if name.startswith("good.") else ""


@asynccontextmanager
async def resolving(answer=silent_about_evil, seconds: float = 1.5) -> AsyncIterator[tuple[SystemResolver, NameServer]]:
    async with NameServer(answer) as names:
        resolver = SystemResolver(CaresLookup(servers=[names.server]), seconds=seconds)
        yield resolver, names
        resolver.close()


async def fails(task: asyncio.Task[Sequence[str]]) -> None:
    with pytest.raises(OSError):  # noqa: PT011  whoever gives up first
        await task


async def test_a_hostile_domain_takes_nobody_elses_time():
    """Two hundred names of one app that nobody answers for; other domains of the app and other apps are answered."""
    async with resolving() as (resolver, names):
        hosts = [f"n{number}.evil.co.uk" for number in range(200)]
        stuck = [asyncio.create_task(resolver(host, "attacker")) for host in hosts]
        await asyncio.sleep(0)
        assert await resolver("good.shop.co.uk", "shop") == [GOOD], "another domain under the same public suffix"
        assert await resolver("good.own.example", "attacker") == [GOOD], "its own other domains"
        assert not any(task.done() for task in stuck)
        assert len(names.questions) <= 2 + 4, "half of a domain's places at most are one app's"
        await asyncio.gather(*(fails(task) for task in stuck))


async def test_an_app_with_many_hostile_domains_leaves_places_for_every_other():
    async with resolving() as (resolver, names):
        for app in ("one", "two", "three", "four", "five"):
            hosts = [f"evil.{app}{number}.example" for number in range(300)]
            stuck = [asyncio.create_task(resolver(host, app)) for host in hosts]
        await asyncio.sleep(0.05)
        assert await resolver("good.shop.example", "shop") == [GOOD]
        assert len([name for name in names.questions if "evil" in name]) < MAX_LOOKUPS
        assert not stuck[0].done()


async def test_a_timeout_truly_frees_the_places():
    async with resolving(seconds=0.3) as (resolver, names):
        hosts = [f"n{number}.evil.example" for number in range(4)]
        for _ in range(3):
            await asyncio.gather(*(fails(asyncio.create_task(resolver(host, "attacker"))) for host in hosts))
        names.answer = lambda _: GOOD

        async def answered() -> bool:
            with contextlib.suppress(OSError):  # within the time, on a busy machine
                return await resolver(hosts[0], "attacker") == [GOOD]
            return False

        await until("once it answers, it is heard", answered)


async def test_a_name_is_looked_up_once_for_all_who_wait():
    async with resolving(seconds=1) as (resolver, names):
        stuck = [asyncio.create_task(resolver("n.evil.example", app)) for app in ("a", "b") for _ in range(50)]

        async def question_came() -> bool:
            return bool(names.questions["n.evil.example"])

        await until("the question", question_came)
        await asyncio.sleep(0)
        assert names.questions["n.evil.example"] == 1
        await asyncio.gather(*(fails(task) for task in stuck))


async def test_hosts_file_and_search_domains_are_used():
    """As Docker, Compose and Kubernetes set them: search domains and ndots."""
    known = {"good.apps.svc.cluster.local": GOOD}
    async with NameServer(lambda name: known.get(name, "")) as names:
        lookup = CaresLookup(servers=[names.server], domains=["apps.svc.cluster.local", "cluster.local"], ndots=5)
        resolver = SystemResolver(lookup)
        assert await resolver("good", "shop") == [GOOD]
        assert "127.0.0.1" in await resolver("localhost", "shop")
        for name in ("no.such.name.example", "x" * 300, "a..b"):
            with pytest.raises(OSError):  # noqa: PT011  whichever way there is none
                await resolver(name, "shop")
        resolver.close()


async def test_the_systems_configuration_is_read():
    resolver = SystemResolver()
    assert "127.0.0.1" in await resolver("localhost", "shop")
    resolver.close()


async def test_without_c_ares_the_systems_resolver_answers_on_threads():
    resolver = SystemResolver(ThreadLookup())
    assert "127.0.0.1" in await resolver("localhost", "shop")
    for name in ("no.such.name.invalid", "x" * 300, "a..b"):
        with pytest.raises(OSError):  # noqa: PT011  whichever way there is none
            await resolver(name, "shop")
    resolver.close()


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("api.evil.co.uk", "evil.co.uk"),
        ("shop.co.uk", "shop.co.uk"),
        ("co.uk", "co.uk"),
        ("a.b.example.com", "example.com"),
        ("one.github.io", "one.github.io"),
        ("x.one.github.io", "one.github.io"),
        ("a.b.kawasaki.jp", "a.b.kawasaki.jp"),
        ("www.city.kawasaki.jp", "city.kawasaki.jp"),
        ("a.foo.xn--55qx5d.cn", "foo.xn--55qx5d.cn"),
        ("n1.tarpit.example", "tarpit.example"),
    ],
)
def test_what_one_party_can_register(host, domain):
    assert registrable_domain(host) == domain


@pytest.mark.parametrize(
    ("urls", "receiver"),
    [
        (("https://a.shop.co.uk/x", "https://b.shop.co.uk:8443/?y"), "shop.co.uk"),
        (
            ("http://127.0.0.1:81/a", "http://localhost:81/b", "http://127.9.9.9:81/", "http://[::1]:81/"),
            "localhost:81",
        ),
        (("http://a.localhost:81/", "http://[::ffff:127.0.0.1]:81/"), "localhost:81"),
        (("http://10.0.0.1:81/a", "http://10.0.0.1:81/b"), "10.0.0.1:81"),
        (("http://receiver:81/a",), "receiver:81"),
    ],
)
def test_who_receives(urls, receiver):
    for url in urls:
        if "::ffff" in url:  # it is refused by its spelling; the rule holds for its parsed form
            continue
        assert receiver_of(check_url(url, AddressPolicy(allow_private=True))) == receiver


LOOKUPS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.booleans()), max_size=60)


@given(LOOKUPS)
def test_places_are_bounded_shared_and_never_lost(steps):
    """Whatever apps take, give back and give up: the bounds hold, and in the end every place is free again."""

    asyncio.run(take_and_give_back(steps))


async def take_and_give_back(steps) -> None:
    places, held = LookupPlaces(total=8, per_app=4, per_domain=4), list[tuple[str, str]]()
    waiting: dict[asyncio.Task[None], tuple[str, str]] = {}
    for app, domain, leaves in steps:
        waiting[asyncio.create_task(places.take(app, domain))] = (app, domain)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if leaves and waiting:
            next(iter(waiting)).cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        for task in [task for task in waiting if task.done()]:
            one = waiting.pop(task)
            if not task.cancelled():
                held.append(one)
        assert len(held) <= 8
        assert max(Counter(app for app, _ in held).values(), default=0) <= 4
        assert max(Counter(held).values(), default=0) <= 2, "an app leaves half of a domain to others"
        if leaves and held:
            places.give_back(*held.pop(0))
    while waiting or held:
        if held:
            places.give_back(*held.pop())
        for _ in range(3):
            await asyncio.sleep(0)
        for task in [task for task in waiting if task.done()]:
            held.append(waiting.pop(task))
        assert held or not waiting, "who waits is admitted as soon as there is a place"
    assert (places._taken, places._waiting) == (0, [])
