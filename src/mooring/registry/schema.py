"""The tables. Alembic's migrations make them; a test checks that both agree."""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    }
)

caches = sa.Table(
    "caches",
    metadata,
    # Creation order within a second, and what pages are cut by.
    sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("messages", sa.JSON, nullable=False),
    sa.Column("tools", sa.JSON, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("metadata", sa.JSON(none_as_null=True)),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expired_at", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("prefix_id", sa.Text, nullable=False),
    sa.Column("failure", sa.JSON(none_as_null=True)),
    sa.Index(None, "tenant", "serial"),
    sa.Index(None, "prefix_id"),
    sa.Index(None, "status", "expired_at"),
    sqlite_autoincrement=True,  # a deleted cache's serial is never used again
)

files = sa.Table(
    "files",
    metadata,
    sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("problem", sa.Text),
    sa.Index(None, "tenant", "serial"),
    sqlite_autoincrement=True,
)

charges = sa.Table(
    "charges",
    metadata,
    sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.Text, nullable=False, unique=True),
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
    sa.Index(None, "tenant", "created_at"),
    sa.Index(None, "request_id"),
    sqlite_autoincrement=True,  # and triggers of the migration: no row is changed or removed
)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("currency", sa.Text, primary_key=True),
    # Minus the sum of the tenant's charges in that currency, so that it need not be added up.
    sa.Column("balance", sa.BigInteger, nullable=False),
)

plan_history = sa.Table(
    "plan_history",
    metadata,
    sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("plan", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

lives = sa.Table(
    "lives",
    metadata,
    sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True),
    # Those that go on; one that ends becomes a charge.
    sa.Column("cache_id", sa.Text, nullable=False, unique=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("began_at", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Index(None, "tenant"),
    sqlite_autoincrement=True,  # a life's serial is in its charge's key
)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("limits", sa.JSON, nullable=False),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Index(None, "tenant"),
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    # No foreign key: a tag outlives its cache, to be bound to the next one.
    sa.Column("cache_id", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("tenant", "name"),
    sqlite_autoincrement=True,
)
