"""Any step of a run made again from its checkpoints, bit for bit, and looked into."""
