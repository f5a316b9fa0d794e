"""The tables. Alembic's migrations make them; a test checks that both agree."""

import sqlalchemy as sa

from mooring.registry.columns import SERIAL, TEXT, TEXT_MAP

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
    sa.Column("serial", SERIAL, primary_key=True, autoincrement=True),
    sa.Column("id", TEXT, nullable=False, unique=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("model", TEXT, nullable=False),
    sa.Column("messages", sa.JSON, nullable=False),
    sa.Column("tools", sa.JSON, nullable=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("description", TEXT, nullable=False),
    sa.Column("metadata", TEXT_MAP),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expired_at", sa.BigInteger, nullable=False),
    sa.Column("status", TEXT, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("prefix_id", TEXT, nullable=False),
    sa.Column("failure", sa.JSON(none_as_null=True)),
    sa.Index(None, "tenant", "serial"),
    sa.Index(None, "prefix_id"),
    sa.Index(None, "status", "expired_at"),
    sqlite_autoincrement=True,  # a deleted cache's serial is never used again
)

files = sa.Table(
    "files",
    metadata,
    sa.Column("serial", SERIAL, primary_key=True, autoincrement=True),
    sa.Column("id", TEXT, nullable=False, unique=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("filename", TEXT, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("status", TEXT, nullable=False),
    sa.Column("problem", TEXT),
    sa.Index(None, "tenant", "serial"),
    sqlite_autoincrement=True,
)

charges = sa.Table(
    "charges",
    metadata,
    sa.Column("serial", SERIAL, primary_key=True, autoincrement=True),
    sa.Column("key", TEXT, nullable=False, unique=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("quantity", sa.BigInteger, nullable=False),
    sa.Column("unit", sa.BigInteger, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("plain", sa.BigInteger, nullable=False),
    sa.Column("currency", TEXT, nullable=False),
    sa.Column("plan", TEXT, nullable=False),
    sa.Column("model", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("cache_id", TEXT),
    sa.Column("tag", TEXT),
    sa.Column("request_id", TEXT),
    sa.Index(None, "tenant", "created_at"),
    sa.Index(None, "request_id"),
    sqlite_autoincrement=True,  # and triggers of the migration: no row is changed or removed
)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("tenant", TEXT, primary_key=True),
    sa.Column("currency", TEXT, primary_key=True),
    # Minus the sum of the tenant's charges in that currency, so that it need not be added up.
    sa.Column("balance", sa.BigInteger, nullable=False),
)

plan_history = sa.Table(
    "plan_history",
    metadata,
    sa.Column("serial", SERIAL, primary_key=True, autoincrement=True),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("plan", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

lives = sa.Table(
    "lives",
    metadata,
    sa.Column("serial", SERIAL, primary_key=True, autoincrement=True),
    # Those that go on; one that ends becomes a charge.
    sa.Column("cache_id", TEXT, nullable=False, unique=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("model", TEXT, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("began_at", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Index(None, "tenant"),
    sqlite_autoincrement=True,  # a life's serial is in its charge's key
)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("limits", sa.JSON, nullable=False),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("tenant", TEXT, sa.ForeignKey("tenants.id"), nullable=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("hash", TEXT, nullable=False, unique=True),
    sa.Column("hint", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Index(None, "tenant"),
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("serial", SERIAL, primary_key=True, autoincrement=True),
    sa.Column("tenant", TEXT, nullable=False),
    sa.Column("name", TEXT, nullable=False),
    # No foreign key: a tag outlives its cache, to be bound to the next one.
    sa.Column("cache_id", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("tenant", "name"),
    sqlite_autoincrement=True,
)

# What servers that share the database tell each other; times are by the database's clock.

claims = sa.Table(
    "claims",
    metadata,
    # Who is doing something that only one should do; past its end, another may.
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("holder", TEXT, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)

endings = sa.Table(
    "endings",
    metadata,
    # Caches that have ended lately, so that everybody gives back their bytes.
    sa.Column("serial", SERIAL, primary_key=True, autoincrement=True),
    sa.Column("cache_id", TEXT, nullable=False),
    sa.Column("prefix_id", TEXT, nullable=False),
    sa.Column("ended_at", sa.Double, nullable=False),
    sa.Index(None, "ended_at"),
    sqlite_autoincrement=True,
)

spans = sa.Table(
    "spans",
    metadata,
    # What a tenant has used, or reserved, in a span of time and in the one before.
    sa.Column("tenant", TEXT, primary_key=True),
    sa.Column("what", TEXT, primary_key=True),
    sa.Column("length_s", sa.Integer, primary_key=True),
    sa.Column("span", sa.BigInteger, nullable=False),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Column("before", sa.BigInteger, nullable=False),
)

places = sa.Table(
    "places",
    metadata,
    # Chats that a tenant may have at once, as taken by each server.
    sa.Column("tenant", TEXT, primary_key=True),
    sa.Column("holder", TEXT, primary_key=True),
    sa.Column("places", sa.Integer, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)
