#!/bin/sh
# Puts tools of ops that no Python package carries into .tools/bin, from the machine's own Debian or Ubuntu archive:
# promtool and prometheus (rules, dashboards), nginx (the proxy's example), redis-server and valkey-server of Debian
# bookworm and trixie (what a restart leaves, what the doctor says of an old one). Needs no root and installs nothing.
# What can't be had is left out with its reason; the tests that want it are skipped then.
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

# Servers of both Debian releases: the ones of another release come from the same archive, through lists of packages of
# our own beside the machine's, and run on their own release's libraries.
machine=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")

release() { # CODENAME: makes $folder/apt.conf, with which apt speaks of that release
	folder=$PWD/.tools/$1
	[ ! -e "$folder/listed" ] || return 0
	mkdir -p "$folder/sources" "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/debs" "$folder/root"
	printf 'Dir::%s "%s";\n' Etc::sourcelist /dev/null Etc::sourceparts "$folder/sources" State::lists "$folder/lists" \
		Cache "$folder/cache" >"$folder/apt.conf"
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
		[ ! -e "$file" ] || ! grep -q "$machine" "$file" || sed "s/\\b$machine\\b/$1/g" "$file" >"$folder/sources/${file##*/}"
	done
	apt-get -c "$folder/apt.conf" -qq update 2>"$folder/apt.log" && ! grep -q '^[EW]:' "$folder/apt.log" && : >"$folder/listed"
}

server() { # CODENAME PACKAGE PATH-OF-BINARY NAME: .tools/bin/NAME-CODENAME
	[ ! -x ".tools/bin/$4-$1" ] || return 0
	release "$1" || { echo "Debian $1 can't be had here; see .tools/$1/apt.log" >&2; return 0; }
	wanted=$(apt-cache -c "$folder/apt.conf" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
		--no-enhances "$2" | grep -E '^(lib|zlib)[^:]*$' | sort -u)
	(cd "$folder/debs" && apt-get -c "$folder/apt.conf" download -qq "$2" $wanted 2>../apt.log) ||
		{ echo "$2 of Debian $1 can't be downloaded; see .tools/$1/apt.log" >&2; return 0; }
	for deb in "$folder"/debs/*.deb; do dpkg -x "$deb" "$folder/root" && rm "$deb"; done
	ln -sf "${3##*/}" "$folder/root/usr/bin/$4" # one program: its name says what it is
	cat >".tools/bin/$4-$1.new" <<-EOF
		#!/bin/sh
		root='$folder/root'
		loader=\$(ls "\$root"/lib64/ld-linux-*.so.* "\$root"/lib/ld-linux-*.so.* "\$root"/usr/lib64/ld-linux-*.so.* 2>/dev/null | head -n 1)
		libs=\$(dirname "\$root"/usr/lib/*/liblzf.so.1)
		exec "\$loader" --library-path "\$libs:\$root/lib/\${libs##*/}" "\$root/usr/bin/$4" "\$@"
	EOF
	chmod +x ".tools/bin/$4-$1.new" && mv ".tools/bin/$4-$1.new" ".tools/bin/$4-$1"
}

server bookworm redis-tools usr/bin/redis-check-rdb redis-server
server trixie redis-tools usr/bin/redis-check-rdb redis-server
server trixie valkey-tools usr/bin/valkey-check-rdb valkey-server
ls .tools/bin
