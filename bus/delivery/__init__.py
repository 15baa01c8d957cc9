"""Who does which job, and how often: claims, their leases, cancellation before a start, and jobs at most once.

`claims` decides, `leases` takes jobs from the queues of a broker and gives them back.
"""
