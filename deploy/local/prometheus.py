"""Runs a Prometheus that must be installed, beside the local stack (`just up --metrics`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from deploy.local.ports import LOOPBACK, Ports

_ALERTS = Path(__file__).parents[1] / "observability" / "alerts.yml"


def find() -> str | None:
    """Returns the path of the program, or None if it is not in PATH."""
    return shutil.which("prometheus")


def configure(folder: Path, ports: Ports, seconds: int = 15, *, has_minio: bool = True) -> None:
    """Writes a configuration that reads both services of a stack, and its MinIO, every so many seconds."""
    jobs = [
        {
            "job_name": service,
            "static_configs": [
                {"targets": [f"{LOOPBACK}:{ports.of(name)}" for name in ports.instances(service)]}
            ],
        }
        for service in ("users", "records")
    ]
    if has_minio:
        targets = [{"targets": [f"{LOOPBACK}:{ports.minio}"]}]
        jobs.append(
            {"job_name": "minio", "metrics_path": "/minio/v2/metrics/cluster", "static_configs": targets}
        )
    configuration = {
        "global": {"scrape_interval": f"{seconds}s", "evaluation_interval": f"{seconds}s"},
        "rule_files": [str(_ALERTS)],
        "scrape_configs": jobs,
    }
    folder.mkdir(mode=0o700, exist_ok=True)
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(configuration, indent=4))


def command(program: str, folder: Path, port: int) -> list[str]:
    """Returns the command that runs it with what `configure` has written."""
    return [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--log.level=warn",
    ]
