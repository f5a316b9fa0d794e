"""The ledger: charges, which are never changed, balances, and the lives of caches."""

import sqlalchemy as sa
from alembic import op

from mooring.registry.columns import SERIAL

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "charges",
        sa.Column("serial", SERIAL, nullable=False, autoincrement=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("unit", sa.BigInteger, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("plain", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("cache_id", sa.Text),
        sa.Column("tag", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.PrimaryKeyConstraint("serial", name="pk_charges"),
        sa.UniqueConstraint("key", name="uq_charges_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_charges_tenant_created_at", "charges", ["tenant", "created_at"])
    op.create_index("ix_charges_request_id", "charges", ["request_id"])
    op.create_table(
        "accounts",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_accounts"),
    )
    op.create_table(
        "lives",
        sa.Column("serial", SERIAL, nullable=False, autoincrement=True),
        sa.Column("cache_id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_lives"),
        sa.UniqueConstraint("cache_id", name="uq_lives_cache_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_lives_tenant", "lives", ["tenant"])
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER charges_no_{change.lower()} BEFORE {change} ON charges"
                " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION charges_are_final() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER charges_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON charges"
        " FOR EACH STATEMENT EXECUTE FUNCTION charges_are_final()"
    )


def downgrade() -> None:
    for table in ("charges", "accounts", "lives"):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION charges_are_final")
