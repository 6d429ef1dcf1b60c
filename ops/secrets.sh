#!/bin/sh
# Makes what a deployment needs and nobody should invent: passwords, the users of Valkey, keys. What is there is kept.
#
#   ops/secrets.sh [FOLDER] [HOST:PORT of Valkey]        default: secrets valkey:6379
#   ops/secrets.sh FOLDER HOST:PORT,HOST:PORT TAG        for a cluster: some of its nodes, and the hash tag of this store
#
# One file per secret, for compose and Kubernetes. The folder is closed to others; the files in it are readable, because a
# container's user is not yours.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-secrets}
valkey=${2:-valkey:6379}
tag=${3:-}

umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() { head -c 32 /dev/urandom; }

keep() { # NAME: keeps what stands on stdin as FOLDER/NAME, unless there is one
	if [ -e "$folder/$1" ]; then cat >/dev/null; else cat >"$folder/$1.new" && mv "$folder/$1.new" "$folder/$1"; fi
	chmod 644 "$folder/$1"
}

hex() { od -An -v -tx1 | tr -d ' \n'; }

sum() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1; }

rules=$(grep '^user ' "$here/users.acl")
scheme=redis database=0
if [ -n "$tag" ]; then # all keys and channels of a store in a cluster begin with its tag
	scheme=redis+cluster database=$tag
	rules=$(printf '%s\n' "$rules" | sed -e "s/\([~&]\)\(vigil\|arq\):/\1{$tag}\2:/g" -e '/^user \(api\|worker\) /s/ +info / +info +cluster|slots /')
fi
for name in api worker metrics admin; do
	random | hex | keep "valkey_password_$name"
	password=$(cat "$folder/valkey_password_$name")
	rules=$(printf '%s\n' "$rules" | sed "s/{$name}/$(printf %s "$password" | sum)/")
	case $name in
	api | worker) printf '%s://%s:%s@%s/%s' "$scheme" "$name" "$password" "$valkey" "$database" | keep "redis_url_$name" ;;
	esac
done
# A new version of Vigil may need other rules. Written into the same file, because a container that has it mounted by
# itself would go on with the old one; whole before, so that a full disk leaves the old rules.
if [ "$(cat "$folder/users.acl" 2>/dev/null)" != "$rules" ]; then
	printf '%s\n' "$rules" >"$folder/users.acl.new"
	if [ -e "$folder/users.acl" ]; then
		cat "$folder/users.acl.new" >"$folder/users.acl"
		echo "the users of Valkey have new rules: a running one takes them with ops/run.sh reload (containers: ops/production.md)" >&2
	else
		cp "$folder/users.acl.new" "$folder/users.acl"
	fi
	rm "$folder/users.acl.new"
	chmod 644 "$folder/users.acl"
fi

random | base64 | tr '+/' '-_' | keep encryption_keys
random | base64 | tr '+/' '-_' | keep audit_key
random | hex | keep identifier_secret
for name in openai_api_key openai_webhook_secret sentry_dsn; do
	keep "$name" </dev/null # empty = not set
	[ -s "$folder/$name" ] || echo "not set yet: $folder/$name"
done
