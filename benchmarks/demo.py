"""`make demo` from nothing: a fresh clone, a fresh virtual environment, an empty model cache; all installs and downloads counted.

python -m benchmarks.demo --json --keep
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.record import arguments, finish


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    repository = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "mygpt"
        subprocess.run(["git", "clone", "--quiet", str(repository), str(clone)], check=True)
        environment = {**os.environ, "HOME": folder, "PIP_NO_CACHE_DIR": "1"}
        environment.pop("MYGPT_HOME", None)
        started = time.perf_counter()
        done = subprocess.run(["make", "demo"], cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stdout[-4000:])
    finish("demo", {"wall_seconds": round(seconds, 1), "last_lines": done.stdout.strip().splitlines()[-3:]}, options)


if __name__ == "__main__":
    main()
