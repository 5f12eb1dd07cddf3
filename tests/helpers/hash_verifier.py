"""A verifier whose findings look random but are a function of the output: it gives random models something to learn."""

from __future__ import annotations

import hashlib

from spark_kernel.records import Parse, Problem, Score
from spark_kernel.verify.verifier import VerifyRequest


class HashVerifier:
    """Correct for about half of all outputs; the answer is a digest of the output."""

    def score(self, request: VerifyRequest) -> Score:
        digest = hashlib.sha256(request.output.encode()).hexdigest()
        correct = int(digest[0], 16) < 8
        return Score(float(correct), correct, Parse.OK, digest[:8], "by hash")

    def check_gold(self, problem: Problem) -> None:
        return None
