#!/bin/sh
# Install the servers of tests/gateways/servers.py into a folder outside the project: install.sh FOLDER
# Needs python3 with venv, node with npm, and on Debian apt-get and dpkg-deb (nginx, haproxy are only unpacked).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
home=${1:?usage: install.sh FOLDER}
mkdir -p "$home/debs" "$home/npm"
cd "$home"

venv() { name=$1; shift; [ -d "$name" ] || python3 -m venv "$name"; "$name/bin/pip" install --quiet "$@"; }

venv litellm 'litellm[proxy]==1.108.7'
venv llmock 'llmock==0.2.2'
(cd npm && npm install --no-audit --no-fund --silent @copilotkit/aimock @dwmkerr/mock-llm)

if [ "${WITH_TORCH:-0}" = 1 ]; then
    venv hf 'torch==2.13.0' 'transformers[serving]==5.24.0'
    hf/bin/python "$here/tiny.py" hf/tiny
fi

if command -v apt-get >/dev/null; then
    cd debs
    apt-get download nginx nginx-common haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 libpcre2-8-0
    for deb in *.deb; do dpkg-deb -x "$deb" root; done
fi
