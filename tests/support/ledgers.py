"""A registry's ledger, read and checked behind the servers' backs."""

from collections import Counter

import sqlalchemy as sa

from mooring.registry.database import Database
from mooring.registry.schema import accounts, charges


def lines(url: str) -> list[sa.Row]:
    """All lines, which add up to the balances."""
    database = Database(sa.make_url(url), connections=2)
    with database.read() as connection:
        found = list(connection.execute(charges.select()).all())
        balances = {
            (row.tenant, row.currency): row.balance for row in connection.execute(accounts.select())
        }
    database.close()
    owed: Counter[tuple[str, str]] = Counter()
    for line in found:
        assert line.amount == line.quantity * line.unit
        owed[line.tenant, line.currency] += line.amount
    assert balances == {account: -amount for account, amount in owed.items()}
    return found
