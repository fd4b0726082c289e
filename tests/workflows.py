"""Checks the workflows in .github with actionlint, which it builds once: `just lint-workflows`."""

import os
import subprocess
import sys

from deploy.local.go_build import GoBuild, build_once, cache_folder

MODULE = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"


def main() -> int:
    """Returns the exit status."""
    build = GoBuild(
        title="actionlint",
        folder=cache_folder(os.environ) / f"actionlint-{MODULE.rpartition('@')[2]}",
        packages=(MODULE,),
        duration="half a minute",
        advice="leave the check of the workflows to CI",
    )
    try:
        build_once(build, lambda line: print(f"waxwing: {line}", file=sys.stderr, flush=True))
    except (RuntimeError, OSError) as error:
        print(f"waxwing: {error}", file=sys.stderr)
        return 1
    return subprocess.run([build.programs[0]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
