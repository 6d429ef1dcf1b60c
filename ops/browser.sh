#!/bin/sh
# Installs Chromium of Debian or Ubuntu for the tests of the console; what is there already stays. Needs root for apt-get.
set -eu
for name in chromium chromium-browser google-chrome; do
	command -v "$name" >/dev/null && exit 0
done
command -v apt-get >/dev/null || { echo "no apt-get here: install Chromium by hand, or the console's browser tests are skipped" >&2; exit 1; }
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
