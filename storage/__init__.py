"""What a node remembers, and the rules of queues. Knows no Raft, no HTTP and no clock."""
