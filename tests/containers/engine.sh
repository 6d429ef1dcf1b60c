#!/bin/sh
# A Docker engine of the tests' own, for a machine that has none and reaches no registry of images: root on Debian.
#
#   tests/containers/engine.sh up      prints the engine's address (DOCKER_HOST)
#   tests/containers/engine.sh down    ends it, and unmounts what it mounted
#
# Everything is in .tools/containers. The engine has a network of its own, so the machine's packet filter stays as it is.
# The base images are stand-ins made from Debian's archive, under the names that the Dockerfile and the compose file have:
# Debian's Python 3.11 in place of python:3.11-slim-bookworm, Debian's Valkey in place of valkey/valkey.
set -eu
cd "$(dirname "$0")/../.."
here=$PWD/.tools/containers
fail() { echo "$*" >&2; exit 1; }

down() {
	for name in dockerd slirp space; do
		[ -f "$here/$name.pid" ] || continue
		pid=$(cat "$here/$name.pid")
		kill "$pid" 2>/dev/null || true
		tries=0
		while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
		kill -9 "$pid" 2>/dev/null || true
		rm -f "$here/$name.pid"
	done
}

archive() { # the address of the Debian archive that this machine's apt uses
	sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb *\(\[[^]]*\]\)* *\([^ ]*\).*/\2/p' \
		/etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep '/debian/*$' | head -n 1
}

root() { # NAME CODENAME PACKAGES: a folder with that release of Debian
	[ ! -e "$here/roots/$1.there" ] || return 0
	rm -rf "$here/roots/$1"
	debootstrap --variant=minbase --include="$3" "$2" "$here/roots/$1" "$(archive)" >"$here/$1.log" 2>&1 ||
		fail "Debian $2 can't be had here: see $here/$1.log"
	rm -rf "$here/roots/$1"/var/cache/apt/archives/*.deb
	: >"$here/roots/$1.there"
}

engine() { # the engine's programs, of Debian trixie, but bookworm's runc, which runs with this machine's libraries
	[ ! -e "$here/engine.there" ] || return 0
	mkdir -p "$here/debs" "$here/engine" "$here/config/cli-plugins"
	chroot "$here/roots/valkey" sh -c 'cd /tmp && apt-get update -qq && apt-get download -qq docker.io docker-cli docker-compose docker-buildx containerd tini' \
		>"$here/engine.log" 2>&1 || fail "the engine's packages can't be downloaded: see $here/engine.log"
	mv "$here"/roots/valkey/tmp/*.deb "$here/debs"
	(cd "$here/debs" && apt-get download -qq runc libseccomp2 >>"$here/engine.log" 2>&1) || fail "runc can't be downloaded: see $here/engine.log"
	for deb in "$here"/debs/*.deb; do dpkg -x "$deb" "$here/engine"; done
	rm -rf "$here/debs"
	for plugin in docker-compose docker-buildx; do
		ln -sf "$(find "$here/engine" -path '*cli-plugins*' -name "$plugin" | head -n 1)" "$here/config/cli-plugins/$plugin"
	done
	: >"$here/engine.there"
}

images() { # import the stand-ins
	settings="$here/roots/python/etc"
	if ! docker image inspect python:3.11-slim-bookworm >/dev/null 2>&1; then
		# pip inside the build asks the same place as pip here; what pip here finds in local files stays out
		{ echo '[global]'
			PIP_REQUIRE_VIRTUALENV='' python3 -m pip config list |
				sed -n "s/^[^.]*\.\(index-url\|extra-index-url\|trusted-host\|cert\|proxy\)='\(.*\)'$/\1 = \2/p" | sort -u -t = -k 1,1
		} >"$settings/pip.conf"
		cp /etc/ssl/certs/ca-certificates.crt "$settings/ssl/certs/ca-certificates.crt"
		for file in $(sed -n 's/^cert = //p' "$settings/pip.conf"); do install -D "$file" "$here/roots/python$file"; done
		tar -C "$here/roots/python" -c . | docker import - python:3.11-slim-bookworm >/dev/null
	fi
	valkey=$(sed -n 's/^ *image: *\(valkey[^ ]*\).*/\1/p' docker-compose.yml)
	if ! docker image inspect "$valkey" >/dev/null 2>&1; then
		install -d -o 999 -g 1000 "$here/roots/valkey/data"
		tar -C "$here/roots/valkey" -c . | docker import --change 'VOLUME /data' - "$valkey" >/dev/null
	fi
}

up() {
	export DOCKER_HOST="unix://$here/docker.sock" DOCKER_CONFIG="$here/config" PATH="$here/engine/usr/bin:$here/engine/usr/sbin:$PATH"
	if ! docker info >/dev/null 2>&1; then
		[ "$(id -u)" = 0 ] || fail "no engine answers, and without root none can be started here"
		command -v apt-get >/dev/null || fail "no engine answers, and one can only be made from Debian's archive"
		for tool in debootstrap slirp4netns iptables; do
			command -v $tool >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap iptables slirp4netns >"$here.log" 2>&1 ||
				fail "$tool can't be installed: see $here.log"
		done
		mkdir -p "$here/roots"
		root python bookworm python3,python3-venv,python3-pip,python-is-python3,ca-certificates &
		root valkey trixie ca-certificates,valkey-server,valkey-tools || exit 1
		wait
		[ -e "$here/roots/python.there" ] || exit 1
		engine
		down
		rm -f "$here/docker.sock"
		unshare -m -n --propagation private sleep infinity &
		echo $! >"$here/space.pid"
		space=$!
		sleep 0.5
		inside() { nsenter -t "$space" -m -n -- "$@"; }
		inside ip link set lo up 2>/dev/null || inside ifconfig lo up
		slirp4netns --configure --mtu=65520 --disable-host-loopback "$space" tap0 >"$here/slirp.log" 2>&1 &
		echo $! >"$here/slirp.pid"
		inside env PATH="$PATH" "$(command -v dockerd)" --data-root "$here/data" --exec-root "$here/exec" \
			--pidfile "$here/dockerd.pid" -H "$DOCKER_HOST" --storage-driver overlay2 \
			--exec-opt native.cgroupdriver=cgroupfs >"$here/dockerd.log" 2>&1 &
		tries=0
		until docker info >/dev/null 2>&1; do
			tries=$((tries + 1))
			[ $tries -lt 150 ] || fail "the engine does not answer: see $here/dockerd.log"
			sleep 0.2
		done
	fi
	images
	echo "DOCKER_HOST='$DOCKER_HOST' DOCKER_CONFIG='$DOCKER_CONFIG' PATH='$PATH'"
}

case ${1:-} in
up) up ;;
down) down ;;
*) fail "usage: tests/containers/engine.sh up | down" ;;
esac
