"""The published data sets that are read as they are: which fields hold what, and how the golds are written."""
