"""Requests to score, and verifiers that misbehave on purpose, for tests of the pool (loaded in workers by name)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from spark_kernel.records import Kind, Origin, Parse, Problem, Score, Task
from spark_kernel.verify.verifier import VerifyRequest

HERE = "tests.helpers.verify"


def request(
    output: str, gold: str = "7", verifier: str = "integer", *, meta: dict | None = None, question: str = "What?"
) -> VerifyRequest:
    """A solve output with its problem and task."""
    problem = Problem("p1", question, gold, verifier, meta=meta or {})
    task = Task("t1", Kind.SOLVE, Origin.PROBLEM, problem.id, (), gold, verifier, "solve-1", 1)
    return VerifyRequest(output, problem, task)


def judgement(output: str, label: str, kind: Kind = Kind.POINTWISE, letters: dict | None = None) -> VerifyRequest:
    """A judge output."""
    problem = Problem("p1", "What?", "7", "integer")
    task = Task("t1", kind, Origin.SOLVE, "p1", (), label, "verdict", "any", 1, label_map=letters)
    return VerifyRequest(output, problem, task)


class Scripted:
    """Does what the output says: a script for one misbehaviour per output."""

    def score(self, request: VerifyRequest) -> Score:
        word, _, rest = request.output.partition(" ")
        if word == "hang":
            time.sleep(1000)
        if word == "sleep":
            time.sleep(float(rest))
        if word == "compute":  # holds the interpreter lock: no signal handler of Python's could run
            return Score(1.0, True, Parse.OK, str(len(str(7 ** (10**9)))))
        if word == "exit":
            os._exit(int(rest))
        if word == "sysexit":
            sys.exit(3)
        if word == "kill":
            os.kill(os.getpid(), int(rest))
        if word == "raise":
            raise ValueError(rest)
        if word == "memory":
            return Score(1.0, True, Parse.OK, str(len(bytearray(1 << 40))))
        if word == "print":
            print(rest)
        if word == "interrupted":
            os.kill(os.getpid(), 2)
        if word == "pid":
            return Score(1.0, True, Parse.OK, str(os.getpid()))
        if word == "modules":
            return Score(1.0, True, Parse.OK, " ".join(sorted(sys.modules)))
        if word == "mark":
            Path(rest).write_text(str(os.getpid()))
            time.sleep(1000)
        if word == "reward":
            return Score(float(rest), None, Parse.OK, rest)
        if word == "badscore":
            return Score(None, None, Parse.TIMEOUT)
        if word == "nothing":
            return None  # type: ignore[return-value]
        return Score(1.0, True, Parse.OK, request.output)

    def check_gold(self, problem: Problem) -> None:
        if problem.gold == "hang":
            time.sleep(1000)
        if problem.gold == "raise":
            raise RuntimeError("no idea")


class Unmakeable(Scripted):
    """A verifier whose constructor fails."""

    def __init__(self) -> None:
        raise RuntimeError("the licence server is away")


not_a_class = Scripted()
