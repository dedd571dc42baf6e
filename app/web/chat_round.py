"""One prompt answered by several arms: threads fill a queue, the page drains it, and no finished answer is lost.

Streamlit stops and restarts a page's script whenever a widget changes. So the threads know nothing of the page: they
store every finished answer themselves, and unfinished ones are held by a `ChatRound` that outlives the script.
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
from siftune.training.evaluation.votes import StoredTurn, store_turn
from siftune.training.inference.engine import Engine, Request, Stats


@dataclass
class ArmAnswer:
    """The answer of one arm so far. `finished` without `stats` means that it was interrupted."""

    arm: str
    text: str = ""
    stats: Stats | None = None
    finished: bool = False
    fault: str | None = None

    def extend(self, part: ArmAnswer) -> None:
        """Add the next part of the same answer."""
        self.text += part.text
        self.stats = part.stats or self.stats
        self.fault = part.fault or self.fault
        self.finished = self.finished or part.finished


@dataclass
class ChatRound:
    """A prompt that is being answered. The page creates and drains it; one thread for each engine fills it."""

    run: RunFolder
    conversation: str
    turn: int
    prompt: str
    system: str = ""
    blind: bool = False
    round: str = field(default_factory=lambda: uuid.uuid4().hex)
    answers: dict[str, ArmAnswer] = field(default_factory=dict)
    revealed: int = 0
    _parts: queue.Queue[ArmAnswer] = field(default_factory=queue.Queue)
    _stop: threading.Event = field(default_factory=threading.Event)

    def submit(self, engine: Engine, requests: Sequence[Request]) -> None:
        """Let `engine` answer in a new thread; the requests of one call are answered as one batch."""
        self.answers |= {request.arm: ArmAnswer(request.arm) for request in requests}
        threading.Thread(target=self._work, args=(engine, requests), daemon=True).start()

    def stop(self) -> None:
        """Stop all arms; the text that each has generated so far is kept and stored."""
        self._stop.set()

    def drain(self) -> None:
        """Move everything from the queue to `answers`. Calls nothing of Streamlit, so a rerun cannot interrupt it."""
        while True:
            try:
                part = self._parts.get_nowait()
            except queue.Empty:
                return
            self.answers[part.arm].extend(part)

    @property
    def finished(self) -> bool:
        """Whether every arm has finished, successfully or not."""
        return all(answer.finished for answer in self.answers.values())

    def order(self) -> list[str]:
        """The arms from left to right."""
        return arm_order(self.round, list(self.answers), blind=self.blind)

    def reveal(self, step: int) -> int:
        """How many characters of every answer to show now, so that blind mode does not reveal the faster arm.

        Grows by at most `step` per call, and never beyond the text of the slowest arm that is still generating.
        """
        unfinished = [len(answer.text) for answer in self.answers.values() if not answer.finished]
        limit = min(unfinished) if unfinished else self._longest()
        self.revealed = min(self.revealed + step, max(limit, self.revealed))
        return self.revealed

    @property
    def fully_revealed(self) -> bool:
        """Whether `reveal` has reached the end of every answer."""
        return self.finished and self.revealed >= self._longest()

    def _longest(self) -> int:
        return max((len(answer.text) for answer in self.answers.values()), default=0)

    def _work(self, engine: Engine, requests: Sequence[Request]) -> None:
        texts = [""] * len(requests)
        try:
            for chunk in engine.stream(requests, stop=self._stop):
                request = requests[chunk.request]
                texts[chunk.request] += chunk.text
                if chunk.stats is not None:
                    self._store(engine, request, texts[chunk.request], chunk.stats)
                self._parts.put(ArmAnswer(request.arm, chunk.text, chunk.stats, finished=chunk.stats is not None))
        except UserError as fault:
            for request in requests:
                self._parts.put(ArmAnswer(request.arm, fault=str(fault)))
        finally:
            # Whatever happened, the page must not wait forever.
            for request in requests:
                self._parts.put(ArmAnswer(request.arm, finished=True))

    def _store(self, engine: Engine, request: Request, text: str, stats: Stats) -> None:
        fingerprint = engine.fingerprint(request.arm)
        facts = {
            **asdict(stats),
            "tokens_per_second": stats.tokens_per_second,
            "fingerprint": str(fingerprint),
            "weights": fingerprint.weights,
            "logits": fingerprint.logits,
            "engine": engine.kind,
            "sampling": asdict(request.sampling),
            "system": self.system,
            "blind": self.blind,
            "position": list(self.answers).index(request.arm),
        }
        store_turn(
            self.run, StoredTurn(self.round, request.arm, self.conversation, self.turn, self.prompt, text, facts)
        )


def arm_order(round_: str, arms: Sequence[str], *, blind: bool) -> list[str]:
    """The arms from left to right: as chosen, or in blind mode in a random order that is fixed for each round."""
    return random.Random(round_).sample(sorted(arms), len(arms)) if blind else list(arms)
