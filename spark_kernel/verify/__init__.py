"""Verifiers and the worker processes they run in (docs/verifiers.md). Importing this loads no scoring library."""

from spark_kernel.verify.pool import VerifierPool
from spark_kernel.verify.registry import get_verifier, verifier_names
from spark_kernel.verify.scoring import score_request
from spark_kernel.verify.verifier import Verifier, VerifyRequest

__all__ = ["Verifier", "VerifierPool", "VerifyRequest", "get_verifier", "score_request", "verifier_names"]
