"""Where runs are kept: one store over five kinds of ledgers.

`ledger` is all that a database must offer; `ledger_store` keeps runs in any of them.
"""
