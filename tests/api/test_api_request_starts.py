"""Requests that arrive at once begin a few in a turn of the loop, and those of known connections go past a burst."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import closing

from hypothesis import given, strategies as st
from measured_api import measured_api

from api.web.request_starts import PER_TURN, Origin, RequestStarts

SENT = st.lists(st.tuples(st.sampled_from(list(Origin)), st.sampled_from("abc")), max_size=120)


async def turns_of(sent):
    """Which of these requests, begun in one turn, started in which turn of the loop."""
    starts, turn, turns = RequestStarts(), 0, []
    for number, (origin, address) in enumerate(sent):
        starts.begin(origin, address, lambda n=number: turns.append((turn, n)))
    while len(turns) < len(sent):
        turn += 1
        assert turn <= len(sent), "nothing is left behind"
        await asyncio.sleep(0)
    return turns


@given(SENT)
def test_no_turn_has_more_than_its_number_and_each_address_keeps_its_order(sent):
    turns = asyncio.run(turns_of(sent))
    assert sorted(n for _, n in turns) == list(range(len(sent)))
    for origin, most in PER_TURN.items():
        per_turn = [[n for t, n in turns if t == turn and sent[n][0] is origin] for turn in range(len(sent) + 1)]
        assert max(map(len, per_turn)) <= most
        for address in "abc":
            own = [n for _, n in turns if sent[n] == (origin, address)]
            assert own == sorted(own)


async def test_a_burst_of_new_connections_passes_nobody_else():
    sent = [(Origin.NEW, "burst")] * 500 + [(Origin.KNOWN, "burst"), (Origin.PROBE, "burst"), (Origin.NEW, "other")]
    turns = {n: turn for turn, n in await turns_of(sent)}
    assert (turns[500], turns[501]) == (0, 0)
    assert turns[502] == 1, "an address of its own is next"
    assert turns[499] == 500 // PER_TURN[Origin.NEW], "and the burst is worked off at the same pace"


async def test_the_next_burst_waits_as_the_first_one_did():
    starts, begun = RequestStarts(), []
    for _ in range(3):
        for _ in range(20):
            starts.begin(Origin.NEW, "a", lambda: begun.append(1))
        assert len(begun) % 20 == PER_TURN[Origin.NEW]
        while len(begun) % 20:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)


def test_heads_of_many_new_connections_do_not_hold_the_loop_up(settings):
    """All at once and without a key."""
    with measured_api(settings) as api:
        host, _, port = api.url.partition(":")
        request = f"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n\r\n".encode()
        wrong = b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n"
        with closing(socket.create_connection((host, int(port)))) as known:
            known.sendall(request)
            assert known.recv(12) == b"HTTP/1.1 200"
            others = [socket.create_connection((host, int(port))) for _ in range(700)]
            api.loop.longest = 0.0
            api.loop.call_soon_threadsafe(lambda: time.sleep(0.3))  # all of them arrive meanwhile
            for one in others:
                one.sendall(wrong)
            known.sendall(request)
            answers = [one.recv(12) for one in others]
            assert answers == [b"HTTP/1.1 401"] * 700
            for one in others:
                one.close()
        assert api.loop.longest < 0.05
