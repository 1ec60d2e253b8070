"""The face that AWS's clients know: SQS, and as much of SNS as fan-out needs, on the node's one HTTP port.

Nothing here decides what a queue does: requests are read, checked as AWS checks them, turned into the operations that
the native API uses as well, and answered in AWS's shapes and words.
"""
