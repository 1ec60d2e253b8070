"""A web application that notifies users, and does the slow part later.

    browser → app → queue "notifications" → worker → outbox

The app answers as soon as the notification is queued, which is to say, on the disks of a majority. Workers take
batches, write them to the outbox in one transaction, and only then ack. A worker may die at any moment: what it had
not acked comes again, and the outbox takes each notification once, because it knows them by their ids.

    trimaran local
    python -m examples.notifications.app
    python -m examples.notifications.worker
    python -m examples.notifications.feeder --count 100000

Kill a node or the worker meanwhile, and start the worker again: the feeder's check at the end still holds.
"""
