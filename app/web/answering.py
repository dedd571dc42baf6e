"""One prompt on its way through several arms: threads fill a queue, the page drains it; nothing finished can be lost.

Streamlit stops and restarts a page's script whenever a widget changes. So the threads know nothing of the page: they
store every finished answer themselves, and what is unfinished lives in an `Answering` that outlasts the script.
"""

from __future__ import annotations

import queue
import random
import threading
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.votes import Turn, store_turn
from siftune.training.inference.engine import Engine, Request, Stats


@dataclass
class Side:
    """What one arm has answered so far. `ended` without `stats` means that it broke off."""

    arm: str
    text: str = ""
    stats: Stats | None = None
    ended: bool = False
    fault: str | None = None


@dataclass(frozen=True)
class _Event:
    arm: str
    text: str = ""
    stats: Stats | None = None
    ended: bool = False
    fault: str | None = None


@dataclass
class Answering:
    """A prompt that is being answered. Made and drained by the page, filled by one thread an engine."""

    run: RunFolder
    conversation: str
    turn: int
    prompt: str
    system: str = ""
    blind: bool = False
    round: str = field(default_factory=lambda: uuid.uuid4().hex)
    sides: dict[str, Side] = field(default_factory=dict)
    revealed: int = 0
    _events: queue.Queue[_Event] = field(default_factory=queue.Queue)
    _stop: threading.Event = field(default_factory=threading.Event)

    def ask(self, engine: Engine, requests: Sequence[Request]) -> None:
        """Let `engine` answer in a thread of its own; requests of one call are answered together."""
        self.sides |= {request.arm: Side(request.arm) for request in requests}
        threading.Thread(target=self._work, args=(engine, requests), daemon=True).start()

    def stop(self) -> None:
        """Ask for the end; every arm keeps what it has said, and that is stored."""
        self._stop.set()

    def drain(self) -> None:
        """Take over what the threads have put on the queue. Calls nothing of Streamlit, so no rerun can cut it."""
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return
            side = self.sides[event.arm]
            side.text += event.text
            side.stats = event.stats or side.stats
            side.fault = event.fault or side.fault
            side.ended = side.ended or event.ended

    @property
    def ended(self) -> bool:
        """Whether every arm has ended, well or not."""
        return all(side.ended for side in self.sides.values())

    def order(self) -> list[str]:
        """The arms from left to right."""
        return order_of(self.round, list(self.sides), blind=self.blind)

    def pace(self, step: int) -> int:
        """How many characters of every side to show now: in blind mode the faster arm must not be told by its speed.

        Grows by at most `step` a call, and never beyond what the slowest arm that is still answering has said.
        """
        unfinished = [len(side.text) for side in self.sides.values() if not side.ended]
        limit = min(unfinished) if unfinished else max((len(side.text) for side in self.sides.values()), default=0)
        self.revealed = min(self.revealed + step, max(limit, self.revealed))
        return self.revealed

    @property
    def shown(self) -> bool:
        """Whether `pace` has come to the end of every answer."""
        return self.ended and self.revealed >= max((len(side.text) for side in self.sides.values()), default=0)

    def _work(self, engine: Engine, requests: Sequence[Request]) -> None:
        texts = [""] * len(requests)
        try:
            for chunk in engine.stream(requests, stop=self._stop):
                request = requests[chunk.request]
                texts[chunk.request] += chunk.text
                if chunk.stats is not None:
                    self._store(engine, request, texts[chunk.request], chunk.stats)
                self._events.put(_Event(request.arm, chunk.text, chunk.stats, ended=chunk.stats is not None))
        except UserError as fault:
            for request in requests:
                self._events.put(_Event(request.arm, fault=str(fault)))
        finally:
            # Whatever happened, the page must not wait for ever.
            for request in requests:
                self._events.put(_Event(request.arm, ended=True))

    def _store(self, engine: Engine, request: Request, text: str, stats: Stats) -> None:
        print_ = engine.fingerprint(request.arm)
        facts = {
            **asdict(stats),
            "tokens_per_second": stats.tokens_per_second,
            "fingerprint": str(print_),
            "weights": print_.weights,
            "logits": print_.logits,
            "engine": engine.kind,
            "sampling": asdict(request.sampling),
            "system": self.system,
            "blind": self.blind,
            "place": list(self.sides).index(request.arm),
        }
        store_turn(self.run, Turn(self.round, request.arm, self.conversation, self.turn, self.prompt, text, facts))


def order_of(round_: str, arms: Sequence[str], *, blind: bool) -> list[str]:
    """Which arm stands where: as chosen, or in blind mode shuffled for every round, and always the same for a round."""
    return random.Random(round_).sample(sorted(arms), len(arms)) if blind else list(arms)
