"""Two services that talk through queues: a shop that takes orders, and payments that settles them.

    customer → shop → queue "payments" → payments → queue "payment-results" → shop → customer

Neither calls the other, so either may be down while the other goes on. Both keep what they did in SQLite, do it once
for each order, and send what follows under a key made from the order, so that being interrupted anywhere is harmless.

    trimaran local
    python -m examples.orders.shop
    python -m examples.orders.payments
    curl -X POST localhost:8081/orders -d '{"item": "sloop", "cents": 129900}'
    curl localhost:8081/orders/1
"""
