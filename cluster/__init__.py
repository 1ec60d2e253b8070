"""How nodes agree: the hardened Raft engine, its transport, the shard and the way a gateway reaches it."""
