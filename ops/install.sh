#!/bin/sh
# Makes .venv with the pinned packages and `vigil`, or brings it up to date. `make` calls this.
#
#   ops/install.sh          what Vigil needs to run
#   ops/install.sh dev      and what its tests need
#   ops/install.sh newest   no .venv, but .tools/newest: `pip install .` with the newest releases that are admitted, anew
#
# Nothing is resolved: the locks name every package, version and hash (ops/locks.py). PYTHON=/path/to/python picks the
# interpreter. Exits 2 with one line when something is missing; what pip said stands in .venv.log.
set -eu
cd "$(dirname "$0")/.." || exit 2
wanted=${1:-run}
log=.venv.log
bin=.venv/bin

fail() { # one line for a person
	echo "$1" >&2
	exit 2
}

is_full() { # FOLDER: a full disk loses the log too, so the log can't be the only witness
	free=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }')
	[ "${free:-1048576}" -lt 10240 ]
}

explain() { # DOING: why the command that wrote the log failed, as far as the log tells
	if grep -qi 'no space left\|disk quota exceeded' "$log" || is_full . || is_full "${TMPDIR:-/tmp}"; then
		fail "No space left while $1: about 500 MB are needed in this folder, and 100 MB in ${TMPDIR:-/tmp}. Free some, then run it again."
	elif grep -qiE 'do not match the hashes|hash(es)? (mismatch|are required)' "$log"; then
		fail "A downloaded package is not the one that was pinned, so it was not installed (see $log). Ask who runs your package index."
	elif grep -qiE 'name resolution|name or service not known|nodename nor servname|network is unreachable|connection (refused|reset|timed out|aborted)|newconnectionerror|max retries exceeded|timed out|proxyerror|tunnel connection failed' "$log"; then
		fail "No package index could be reached while $1. Connect this machine to the network, or point pip at an index that it can reach, then run it again."
	elif grep -qi 'certificate' "$log"; then
		fail "The package index has a certificate that pip does not trust. Set PIP_CERT to the bundle of your network's certificates, then run it again."
	elif grep -qi 'no matching distribution\|could not find a version' "$log"; then
		fail "The package index lacks a pinned package: $(grep -i -m1 'no matching distribution\|could not find a version' "$log" | cut -c1-160)"
	elif grep -qi 'permission denied' "$log"; then
		fail "This folder can't be written while $1: $(grep -i -m1 'permission denied' "$log" | cut -c1-160)"
	fi
	fail "Failed while $1: $(grep -v '^ *$' "$log" | tail -n 1 | cut -c1-160). All that pip said stands in $log."
}

run() { # DOING COMMAND...: runs it quietly, or explains
	doing=$1 && shift
	"$@" >"$log" 2>&1 || explain "$doing"
}

# The first interpreter that runs and is new enough; a version manager's stand-ins may not run at all.
find_python() {
	for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3}; do
		"$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
		found=$candidate
		"$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1 || continue
		echo "$candidate" && return
	done
	[ -z "${found:-}" ] ||
		fail "$found has no venv module; install it (on Debian and Ubuntu: apt-get install python3-venv), then run it again."
	version=$(${PYTHON:-python3} --version 2>/dev/null) || version=
	fail "Vigil needs Python 3.11 or newer with its venv module; here is ${version:-none}."
}

: 2>/dev/null >"$log" || fail "This folder can't be written: $(pwd)"

if [ "$wanted" = newest ]; then
	python=$(find_python) || exit 2
	rm -rf .tools/newest
	run "making .tools/newest" "$python" -m venv .tools/newest
	echo "installing the newest packages that pyproject.toml admits"
	run "installing the newest packages" .tools/newest/bin/python -m pip --disable-pip-version-check install '.[dev]'
	run "checking what was installed" .tools/newest/bin/python -m pip --disable-pip-version-check check
	.tools/newest/bin/python -m pip --disable-pip-version-check list --format freeze >.tools/newest/installed.txt
	rm -f "$log"
	exit 0
fi

# What the environment was made from; where it stands is part of it, because its scripts name that path.
state="$(cat ops/requirements-build.lock ops/requirements.lock ops/requirements-dev.lock pyproject.toml | cksum) $(pwd)"
for stage in run $wanted; do
	[ "$(cat ".venv/.installed-$stage" 2>/dev/null)" = "$state" ] && continue
	if ! "$bin/python" -m pip --version >/dev/null 2>&1 || [ "$(cat .venv/.place 2>/dev/null)" != "$(pwd)" ]; then
		python=$(find_python) || exit 2
		echo "making .venv with $("$python" --version)"
		rm -rf .venv
		run "making .venv" "$python" -m venv .venv
		pwd >.venv/.place
	fi
	pip="$bin/python -m pip --disable-pip-version-check"
	if [ "$stage" = run ]; then
		echo "installing the packages that Vigil runs on"
		run "installing the packages that Vigil runs on" $pip install --no-deps --require-hashes \
			-r ops/requirements-build.lock -r ops/requirements.lock
		run "installing vigil" $pip install --no-deps --no-build-isolation --editable .
	else
		echo "installing the packages that its tests run on"
		run "installing the packages that its tests run on" $pip install --no-deps --require-hashes -r ops/requirements-dev.lock
	fi
	run "checking what was installed" $pip check
	echo "$state" >".venv/.installed-$stage"
done
rm -f "$log"
