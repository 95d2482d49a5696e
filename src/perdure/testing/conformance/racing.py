"""Many workers at once, each with a store of its own."""

from __future__ import annotations

from typing import Any, Final

from perdure.engine import ops
from perdure.testing.conformance.bench import WORKERS, Bench, counted, message

ROUNDS: Final = 10
SHARED: Final[dict[str, Any]] = {"handle": "conv_1", "dialect": "conversations"}


class Racing:
    """What a store promises to workers that do the same thing at the same time."""

    def test_one_of_many_binds_a_replica(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1", "One.")
        for generation, bound in enumerate(
            bench.rounds(
                ROUNDS,
                lambda worker, number, time: worker.bind(
                    conversation, time, f"conv_{time}_{number}", lost="conv_1"
                ),
            )
        ):
            assert {"bound": 1, "beaten": WORKERS - 1} == counted(bound)
            assert bench.find(f"conv_{generation}_{bound.index('bound')}") is not None
        replica = bench.found("conv_1").replica
        assert (f"conv_{generation}_{bound.index('bound')}", ROUNDS) == (
            replica.handle,
            replica.generation,
        )
        assert ROUNDS * (WORKERS - 1) == len(bench.orphaned())

    def test_an_id_issued_twice_is_bound_once(self, bench: Bench) -> None:
        conversations = [bench.conversation(f"conv_{n}") for n in range(WORKERS)]
        bound = bench.at_once(lambda worker, n: worker.bind(conversations[n], 0, "conv_same"))
        assert {"bound": 1, "taken": WORKERS - 1} == counted(bound)
        owner = conversations[bound.index("bound")]
        assert owner == bench.found("conv_same").conversation

    def test_a_response_issued_twice_answers_one_turn(self, bench: Bench) -> None:
        turns = [bench.taken(f"Question {n}.") for n in range(WORKERS)]
        completed = bench.at_once(
            lambda worker, n: worker.complete(turns[n], "Yes.", response="resp_same")
        )
        assert {"done": 1, "taken": WORKERS - 1} == counted(completed)

    def test_a_handle_never_seen_begins_one_conversation(self, bench: Bench) -> None:
        for accepted in bench.rounds(
            ROUNDS,
            lambda worker, number, time: worker.accept(
                f"Message {number}.", handle=f"conv_{time}", dialect="conversations"
            ),
        ):
            assert {"deliver": 1, "wait": WORKERS - 1} == counted(one.outcome for one in accepted)
            turns = [one.turn for one in accepted if one.turn is not None]
            assert 1 == len({turn.conversation for turn in turns})
            assert list(range(1, WORKERS + 1)) == sorted(turn.seq for turn in turns)

    def test_a_subject_never_seen_gets_one_conversation(self, bench: Bench) -> None:
        for accepted in bench.rounds(
            ROUNDS,
            lambda worker, number, time: worker.accept(
                f"Message {number}.", subject=f"user-{time}"
            ),
        ):
            assert {"deliver": 1, "wait": WORKERS - 1} == counted(one.outcome for one in accepted)
            assert 1 == len({one.turn.conversation for one in accepted if one.turn is not None})

    def test_one_worker_takes_a_turn(self, bench: Bench) -> None:
        for subject in (None, "ann"):
            for accepted in bench.rounds(
                ROUNDS,
                lambda worker, _, time, who=subject: worker.accept(  # type: ignore[misc]
                    "Hello.", turn_id=f"turn-{who}-{time}", subject=who and f"{who}-{time}"
                ),
            ):
                outcomes = counted(one.outcome for one in accepted)
                assert {"deliver": 1, "wait": WORKERS - 1} == outcomes
                assert 1 == len({one.turn for one in accepted})

    def test_one_worker_takes_over_a_turn_that_was_left(self, bench: Bench) -> None:
        places: list[dict[str, Any]] = []
        for number in range(ROUNDS):
            bench.conversation(f"conv_{number}")
            places.append({"handle": f"conv_{number}", "dialect": "conversations"})
            places.append({"turn_id": f"turn-{number}"})
        for place in places:
            bench.taken("Hello.", **place)
        bench.later(61)
        for accepted in bench.rounds(
            len(places), lambda worker, _, time: worker.accept("Hello.", **places[time])
        ):
            assert {"deliver": 1, "wait": WORKERS - 1} == counted(one.outcome for one in accepted)
            assert {2} == {one.turn.epoch for one in accepted if one.turn is not None}

    def test_one_answer_counts(self, bench: Bench) -> None:
        turns = [bench.taken(f"Question {number}.") for number in range(ROUNDS)]
        rounds = bench.rounds(
            ROUNDS,
            lambda worker, number, time: worker.complete(
                turns[time], f"Answer {number}.", response=f"resp_{time}_{number}"
            ),
        )
        for turn, completed in zip(turns, rounds, strict=True):
            assert {"done": 1, "fenced": WORKERS - 1} == counted(completed)
            answer = f"Answer {completed.index('done')}."
            assert [answer] == bench.said(turn.conversation)[1:]

    def test_branches_opened_at_once_are_all_there(self, bench: Bench) -> None:
        trunk = bench.exchange("One.", "1", "resp_1")
        bench.exchange("Two.", "2", "resp_2", handle="resp_1")

        def fork(worker: Bench, number: int) -> int:
            turn = worker.taken(f"Branch {number}.", handle="resp_1")
            assert "done" == worker.complete(turn, "Yes.", response=f"resp_b{number}")
            return turn.conversation

        branches = bench.at_once(fork)
        assert WORKERS == len({*branches, trunk.conversation}) - 1
        for number, branch in enumerate(branches):
            assert ["One.", "1", f"Branch {number}.", "Yes."] == bench.said(branch)

    def test_facts_pinned_at_once_are_all_kept(self, bench: Bench) -> None:
        numbers = bench.at_once(
            lambda worker, n: worker.ask(ops.Pin(worker.tenant, "ann", f"Fact {n}."))
        )
        assert list(range(1, WORKERS + 1)) == sorted(numbers)

    def test_what_many_learn_is_learnt_once(self, bench: Bench) -> None:
        conversation = bench.conversation("conv_1")
        turn = bench.taken("One.", **SHARED)
        bench.complete(turn, "1", dialect="conversations", response="resp_1")
        seen = (message("1", provider_id="resp_1-0"), message("New.", provider_id="msg_9"))
        learnt = bench.at_once(
            lambda worker, _: worker.ask(ops.Learn(worker.tenant, conversation, seen, whole=False))
        )
        assert ["done"] * WORKERS == learnt
        assert ["One.", "1", "New."] == bench.said(conversation)

    def test_forgetting_while_others_write_leaves_nothing_half_there(self, bench: Bench) -> None:
        bench.exchange("One.", "1", "resp_1", subject="ann")

        def work(worker: Bench, number: int) -> str:
            if number == 0:
                worker.ask(ops.Forget(worker.tenant, "ann"))
                return "forgot"
            accepted = worker.accept(f"Message {number}.", handle="resp_1")
            if accepted.turn is not None and accepted.outcome == "deliver":
                worker.complete(accepted.turn, "Yes.", response=f"resp_w{number}")
            return accepted.outcome

        outcomes = bench.at_once(work)

        assert "forgot" == outcomes[0]
        for number in range(1, WORKERS):
            found = bench.find(f"resp_w{number}")
            if found is not None:
                assert f"Message {number}." in bench.said(found.conversation)

    def test_turns_through_many_workers_stay_in_order(self, bench: Bench) -> None:
        """Each worker delivers its own turn when it is first in line; none is lost or doubled."""
        conversation = bench.conversation("conv_1")

        def work(worker: Bench, number: int) -> None:
            accepted = worker.accept(f"Q{number}", **SHARED)
            while accepted.outcome != "deliver":
                assert accepted.outcome == "wait"
                accepted = worker.accept(f"Q{number}", **SHARED, waiting_for=accepted.turn)
            assert accepted.turn is not None
            assert "done" == worker.complete(
                accepted.turn, f"A{number}", dialect="conversations", response=f"r_{number}"
            )

        bench.at_once(work, 4)
        said = bench.said(conversation)
        assert [f"A{one[1:]}" for one in said[::2]] == said[1::2]
        assert sorted(f"Q{n}" for n in range(4)) == sorted(said[::2])
