"""Who does which job, and how often: claims, their leases, cancellation before a start, and jobs at most once.

`claims` is the table, `leases` takes jobs from the queues of a broker and settles them, `revocation` takes cancelled
jobs out of queues, `direct` asks other runners for jobs at most once.
"""
