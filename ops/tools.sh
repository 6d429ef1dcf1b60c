#!/bin/sh
# Puts tools of ops that no Python package carries into .tools/bin, from the machine's own Debian or Ubuntu archive:
# promtool and prometheus (rules, dashboards), nginx (the proxy's example), an older redis-server (what the doctor says
# of one). Needs no root and installs nothing.
# Exits 1 with the reason where they can't be had; the tests that want them are skipped then.
set -eu
cd "$(dirname "$0")/.."
mkdir -p .tools/debs .tools/root .tools/bin
command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "no apt-get and dpkg here" >&2; exit 1; }

fetch() { # PACKAGE PATH-OF-BINARY...
	package=$1 && shift
	[ ! -e ".tools/debs/$package.there" ] || return 0
	(cd .tools/debs && apt-get download -qq "$package" 2>apt.log) || { echo "$package can't be downloaded; see .tools/debs/apt.log" >&2; return 1; }
	dpkg -x ".tools/debs/${package}"_*.deb .tools/root
	: >".tools/debs/$package.there"
	for path in "$@"; do ln -sf "../root/$path" ".tools/bin/${path##*/}"; done
}

fetch prometheus usr/bin/promtool usr/bin/prometheus
fetch nginx usr/sbin/nginx
if fetch redis-tools usr/bin/redis-check-rdb && fetch liblzf1 && fetch libjemalloc2; then
	ln -sf redis-check-rdb .tools/root/usr/bin/redis-server # one program: its name says what it is
	printf '#!/bin/sh\nroot=%s\nLD_LIBRARY_PATH=$(dirname "$root"/usr/lib/*/liblzf.so.1) exec "$root/usr/bin/redis-server" "$@"\n' \
		"'$PWD/.tools/root'" >.tools/bin/redis-server
	chmod +x .tools/bin/redis-server
fi
ls .tools/bin
