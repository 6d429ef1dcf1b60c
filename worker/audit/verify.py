"""Verifies a trail as a stream: every chain, every checkpoint, in memory that grows only with open jobs. Pure.

Feed it seals and rows in order; it stops at the end of the first range in which something is wrong; `diagnose` then
looks closely. Chains of ended jobs are remembered for a while, because records may follow an end.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from worker.audit.chain import GENESIS, AuditRow, export_line, hash_of, read_header, stream_id
from worker.audit.diagnose import AuditFault, TamperKind, diagnose_range
from worker.audit.keys import TrustedKeys
from worker.audit.seals import BadSeal, Digest, Seal, extend_kept_chain, parse, verify_signature
from worker.jobs.events import TERMINAL_FACTS, ContentRemoved

_MAX_REMEMBERED: Final = 100_000
_TERMINAL_TYPES: Final = frozenset(fact.TYPE for fact in TERMINAL_FACTS)
_AFTER_END_TYPE: Final = ContentRemoved.TYPE  # only of ended jobs
_FIRST: Final = (0, 0)


class Verifier:
    """Verifies a trail: call `add(lines)` of seals and `feed(rows)` in turns, seals first; then `finish()`."""

    def __init__(
        self,
        trusted: TrustedKeys,
        retention: Seal | None = None,
        starts: Mapping[str, str] | None = None,
        *,
        from_any: bool = False,
        begin: tuple[int, str] | None = None,
    ) -> None:
        """`retention`: the last retention seal, if any; `starts`: the hashes before chains that don't begin here.

        `from_any`: the first seal may be any one; records before it are not sealed. `begin`: (number, hash) of the seal
        behind which the first one comes, because the archive's retention removed all up to it: of chains that go on
        from there only the checkpoints vouch.
        """
        self.faults: list[AuditFault] = []
        self.suspects: dict[str, AuditRow] = {}
        self.stopped = False
        self.records = self.unsealed = self.kept = self.seals = self.ended = self.forgotten = 0
        self.first_unsealed: str | None = None
        self.open: dict[str, str] = {}
        self.tail: dict[str, str] = {}  # the ends of chains that have records after the last seal
        self.retention = retention
        self.sealed_to: tuple[int, int] = (0, 0)  # the last record that an added seal covers
        self.last_seal: Seal | None = None
        self._from_any, self._begin = from_any, begin
        self._trusted, self._closed = trusted, OrderedDict[str, str]()
        self._starts = dict(starts or {})
        self._pending: deque[Seal] = deque()
        self._digest, self._range = Digest(), list[tuple[str, str]]()
        self._at = self._first_sealed = (-1, 0)
        self._upto, self._kept_head = (-1, 0), GENESIS
        if retention is not None:
            self._upto = stream_id(retention.body["upto"])
            self._starts |= retention.body["heads"]
            self.seal_is_signed(retention)

    # -- seals

    def add(self, lines: Iterable[bytes]) -> None:
        """Add the next seals, in order; the first wrong one ends the proof."""
        for text in lines:
            if self.stopped:
                return
            try:
                seal = parse(text)
            except BadSeal as error:
                number = (self.last_seal.number if self.last_seal else 0) + 1
                self._bad_seal(number, f"checkpoint {number} can't be read: {error}")
                return
            if self._follows(seal) and self.seal_is_signed(seal):
                if self.last_seal is None and self._from_any and seal.kind == "checkpoint":
                    self._first_sealed = stream_id(seal.body["first"])
                self.last_seal = seal
                self.seals += 1
                if seal.kind == "checkpoint":
                    self._pending.append(seal)
                    self.sealed_to = stream_id(seal.last)

    def seal_is_signed(self, seal: Seal) -> bool:
        """Return whether a trusted key signed it; if not, the proof ends."""
        match verify_signature(seal, self._trusted):
            case "good":
                return True
            case "unknown":
                self._bad_seal(
                    seal.number, f"checkpoint {seal.number} is signed by {seal.body['key']}, which is not a trusted key"
                )
            case "bad":
                self._bad_seal(seal.number, f"the signature of checkpoint {seal.number} does not fit it")
        return False

    def _follows(self, seal: Seal) -> bool:
        before = self.last_seal
        if before is not None:
            number, previous = before.number + 1, before.hash
        elif self._begin is not None:
            number, previous = self._begin[0] + 1, self._begin[1]
        elif self.retention is not None:
            number, previous = self.retention.body["through"] + 1, self.retention.body["through_hash"]
        elif self._from_any:
            number, previous = seal.number, seal.body["previous"]
        else:
            number, previous = 1, GENESIS
        if seal.number != number:
            self._bad_seal(number, f"checkpoint {number} is missing: {seal.number} is in its place")
        elif seal.body["previous"] != previous:
            self._bad_seal(seal.number, f"checkpoint {seal.number} does not follow from the one before it")
        elif seal.kind == "checkpoint" and stream_id(seal.body["first"]) <= max(self.sealed_to, self._upto):
            self._bad_seal(seal.number, f"checkpoint {seal.number} seals records a second time")
        else:
            return True
        return False

    def _bad_seal(self, number: int, detail: str) -> None:
        self.faults.append(AuditFault(TamperKind.CHECKPOINT, detail, checkpoint=number))
        self.stopped = True

    # -- records

    def feed(self, rows: Sequence[AuditRow]) -> None:
        """Check the next records, in order; all seals up to the last of them must have been added."""
        for row in rows:
            place = stream_id(row.id)
            if self.stopped or not self._reaches(row, place):
                return
            chain = self._link(row)
            if chain is None:
                return
            if place <= self._upto:
                self.kept += 1
                self._kept_head = extend_kept_chain(self._kept_head, row)
            elif not self._pending or place < self._first_sealed:
                self.unsealed += 1
                self.first_unsealed = self.first_unsealed or row.id
                self.tail[chain] = row.hash
            else:
                self._digest.add(export_line(row))
                self._range.append((row.id, row.hash))
                if row.id == self._pending[0].last:
                    self._close(more_follow=True)

    def _reaches(self, row: AuditRow, place: tuple[int, int]) -> bool:
        """Check the row's position and close the ranges before it; return False if the proof ends."""
        if place <= self._at:
            self.faults.append(AuditFault(TamperKind.REORDERED, f"{row.id} comes after a later record", row.id))
            self.stopped = True
            return False
        self._at = place
        if place > self._upto:
            if self._upto >= _FIRST:
                self._end_of_kept()
            while self._pending and place > stream_id(self._pending[0].last) and not self.stopped:
                self._close(more_follow=True)
        return not self.stopped

    def _link(self, row: AuditRow) -> str | None:
        """Link the row to its chain and return the chain; a row that doesn't fit makes the chain a suspect."""
        try:
            chain, seq, kind = read_header(row.record)
        except ValueError:
            self.faults.append(AuditFault(TamperKind.ALTERED, f"{row.id} is not a record", row.id))
            self.stopped = True
            return None
        self.records += 1
        head, over = self.open.get(chain), kind == _AFTER_END_TYPE
        if head is None:
            head = self._closed.pop(chain, None)
            over |= head is not None
        if head is None:
            head = self._starts.pop(chain, GENESIS)
            over |= seq is None and head != GENESIS
            if head == GENESIS and self._begin is not None and seq != 1:
                head = None  # its beginning may be over
        if (
            head is not None
            and hash_of(head, row.record) != row.hash
            and not (self.forgotten and seq is None and head == GENESIS)
        ):
            self.suspects.setdefault(chain, row)  # (after a forgotten end only a checkpoint can prove a record)
        if over or kind in _TERMINAL_TYPES:
            self._end(chain, row.hash, ended=kind in _TERMINAL_TYPES)
        else:
            self.open[chain] = row.hash
        return chain

    def finish(self) -> None:
        """Close the remaining ranges at the end of the trail."""
        if self._upto >= _FIRST and not self.stopped:
            self._end_of_kept()
        while self._pending and not self.stopped:
            self._close(more_follow=False)
        if self.suspects:
            self.stopped = True

    def _end(self, chain: str, head: str, *, ended: bool) -> None:
        self.open.pop(chain, None)
        self.ended += ended
        self._closed[chain] = head
        if len(self._closed) > _MAX_REMEMBERED:
            self._closed.popitem(last=False)
            self.forgotten += 1

    def _close(self, *, more_follow: bool) -> None:
        """End a checkpoint's range: unless it has what was sealed and every record fits, the proof ends."""
        seal = self._pending.popleft()
        body = seal.body
        if (self._digest.count, self._digest.hexdigest()) != (body["count"], body["digest"]):
            self.faults.append(diagnose_range(seal, self._range, more_follow=more_follow))
            self.stopped = True
        if self.suspects:
            self.stopped = True
        self._digest, self._range = Digest(), []

    def _end_of_kept(self) -> None:
        """Check that the records kept by a hold are those that the retention seal names."""
        self._upto = (-1, 0)
        if self.retention is None:
            return
        kept, upto = self.retention.body["kept"], self.retention.body["upto"]
        if (self.kept, self._kept_head) == (kept["count"], kept["head"]):
            return
        self.stopped = True
        number, kind = self.retention.number, TamperKind.ALTERED
        detail = f"the records up to {upto} that a hold kept are not what seal {number} says"
        if self.kept != kept["count"]:
            kind = TamperKind.REMOVED if self.kept < kept["count"] else TamperKind.INSERTED
            detail = f"seal {number} says that {kept['count']} records up to {upto} were kept; there are {self.kept}"
        self.faults.append(AuditFault(kind, detail, upto, checkpoint=number))
