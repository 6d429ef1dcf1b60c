#!/bin/sh
# Puts tools of ops that no Python package carries into .tools/bin, from the machine's own Debian or Ubuntu archive:
# promtool and prometheus (rules, dashboards) and nginx (the proxy's example). Needs no root and installs nothing.
# Exits 1 with the reason where they can't be had; the tests that want them are skipped then.
set -eu
cd "$(dirname "$0")/.."
mkdir -p .tools/debs .tools/root .tools/bin
command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "no apt-get and dpkg here" >&2; exit 1; }

fetch() { # PACKAGE PATH-OF-BINARY...
	package=$1 missing=no && shift
	for path in "$@"; do [ -x ".tools/bin/${path##*/}" ] || missing=yes; done
	[ "$missing" = yes ] || return 0
	(cd .tools/debs && apt-get download -qq "$package" 2>apt.log) || { echo "$package can't be downloaded; see .tools/debs/apt.log" >&2; return 1; }
	dpkg -x ".tools/debs/${package}"_*.deb .tools/root
	for path in "$@"; do ln -sf "../root/$path" ".tools/bin/${path##*/}"; done
}

fetch prometheus usr/bin/promtool usr/bin/prometheus
fetch nginx usr/sbin/nginx
ls .tools/bin
