"""What we do beside a peer that does the same work, on the same machine, in the same run."""
