"""A private PostgreSQL server in a temporary directory, to be filled, stopped and broken by tests.

It is the machine's own PostgreSQL, run as a user of its own: `initdb` refuses root.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import psycopg
import sqlalchemy as sa

from mooring.testing.port import free_port

_USER = "postgres"
_PASSWORD = "a-secret-of-this-test"
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 60
shared_buffers = 16MB
fsync = off                  # it is killed here, but the machine is not
autovacuum = off
log_min_messages = fatal
"""


def _binaries() -> Path:
    """Where `initdb` and `pg_ctl` are: Debian keeps them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise RuntimeError("these tests need a PostgreSQL server: run tools/install_postgresql.sh")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


class PostgresServer:
    """Runs from construction to `close`."""

    def __init__(self) -> None:
        self._binaries = _binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="mooring-postgresql-"))
        self._user = _server_user()
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self.port = free_port()
        password = self._folder / "password"
        password.write_text(_PASSWORD)
        password.chmod(0o644)
        self._data = self._folder / "data"
        create = ["--username", _USER, "--auth", "scram-sha-256", "--pwfile", str(password)]
        create += ["--encoding", "UTF8", "--locale", "C", "--no-sync"]
        self._run("initdb", "--pgdata", str(self._data), *create)
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS + f"port = {self.port}\n")
        self._numbers = count()
        self._template: str | None = None
        self.start()

    def start(self) -> None:
        self._control("start", "--wait", "--log", str(self._folder / "log"))

    def stop(self) -> None:
        """As if it had crashed: connections are cut, and it recovers from its log when started."""
        self._control("stop", "--mode", "immediate")

    def url(self, database: str = "postgres") -> str:
        patient = "connect_timeout=60"  # a machine that runs many tests is slow
        return f"postgresql://{_USER}:{_PASSWORD}@127.0.0.1:{self.port}/{database}?{patient}"

    def create(self, template: str | None = None) -> str:
        """A new database's URL: empty, or a copy."""
        name = f"registry_{next(self._numbers)}"
        like = "" if template is None else f" TEMPLATE {sa.make_url(template).database}"
        self.execute("postgres", f"CREATE DATABASE {name}{like}")
        return self.url(name)

    def drop(self, url: str) -> None:
        self.execute("postgres", f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")

    def execute(self, database: str, statement: str) -> Sequence[tuple]:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._control("stop", "--mode", "immediate", check=False)
        shutil.rmtree(self._folder)

    def _control(self, action: str, *arguments: str, check: bool = True) -> None:
        self._run("pg_ctl", action, "--silent", "--pgdata", str(self._data), *arguments, check=check)

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        identity = {}
        if self._user is not None:
            identity = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        subprocess.run(
            [str(self._binaries / program), *arguments],
            check=check,
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if not check else None,
            timeout=120,
            **identity,
        )


def _server_user() -> pwd.struct_passwd | None:
    """Whom to be in root's place; None: ourselves."""
    if os.geteuid() != 0:
        return None
    for name in (_USER, "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("a PostgreSQL server cannot run as root, and there is no user to be instead")
