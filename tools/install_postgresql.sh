#!/usr/bin/env bash
# Installs a PostgreSQL server for the tests, unless there is one; they start and stop their own clusters.
set -euo pipefail
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null && exit 0
command -v initdb >/dev/null && exit 0
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
as_root apt-get update -q
# Without a cluster of the system's own: nothing is left running.
as_root apt-get install -q -y --no-install-recommends postgresql-common
echo "create_main_cluster = false" | as_root tee -a /etc/postgresql-common/createcluster.conf >/dev/null
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql
