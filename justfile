# Every command that a person or CI runs. The script `just` makes .venv first and then runs these recipes with it.

set dotenv-path := ".env"

requirements := "uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-package waxwing-common --no-emit-package waxwing-users --no-emit-package waxwing-records --custom-compile-command 'just lock'"

run-just := quote(just_executable()) + " --justfile " + quote(justfile())

run-backup := run-just + " run-backup"

# List the recipes
[private]
default:
    @just --list --unsorted

# Start everything and show its logs until Ctrl-C (-d: in the background; --metrics: with Prometheus)
[group('stack')]
[no-exit-message]
up *ARGS:
    @exec python -m deploy.local up {{ARGS}}

# Stop what `up -d` has started
[group('stack')]
[no-exit-message]
down:
    @python -m deploy.local down

# Show the latest log lines of all processes, or of those named (-f: follow, -n LINES: how many, --json: as they were written)
[group('stack')]
[no-exit-message]
logs *ARGS:
    @python -m deploy.local logs {{ARGS}}

# Show what runs, where and since when
[group('stack')]
[no-exit-message]
ps:
    @python -m deploy.local ps

# Show on one screen how everything is: parts, uploads, records, disks, last backup and doctor (--json)
[group('stack')]
[no-exit-message]
[positional-arguments]
status *ARGS:
    @python -m deploy.local status "$@"

# Open psql on the stack's database, or pass it arguments such as -c 'select 1'
[group('stack')]
[no-exit-message]
[positional-arguments]
psql *ARGS:
    @python -m deploy.local psql "$@"

# Stop the stack and delete all its users, records, logs and passwords
[group('stack')]
[no-exit-message]
reset:
    @python -m deploy.local reset

# Create a user, upload a recording, and download its MP3; the stack goes on running
[group('use')]
[no-exit-message]
demo: (up "-d")
    @python -m deploy.terminal demo

# Create a user, whom the next commands use from then on (--json)
[group('use')]
[no-exit-message]
[positional-arguments]
user NAME *ARGS:
    @python -m deploy.terminal user "$@"

# Upload WAVs and print the links of their MP3s (--title TITLE, --bitrate KBPS, --keep-original; --key KEY: repeat an upload safely; --json)
[group('use')]
[no-exit-message]
[positional-arguments]
upload +FILES:
    @cd {{quote(invocation_directory())}} && PYTHONPATH={{quote(justfile_directory())}} python -m deploy.terminal upload "$@"

# List the records, newest first, or those with a TEXT in their title (--json)
[group('use')]
[no-exit-message]
[positional-arguments]
records *TEXT:
    @python -m deploy.terminal records "$@"

# Download a record's MP3 and check it (FILE: a name or a folder; --original: the WAV that it has kept; --json)
[group('use')]
[no-exit-message]
[positional-arguments]
get RECORD *FILE:
    @cd {{quote(invocation_directory())}} && PYTHONPATH={{quote(justfile_directory())}} python -m deploy.terminal get "$@"

# Delete records
[group('use')]
[no-exit-message]
[positional-arguments]
delete +RECORDS:
    @python -m deploy.terminal delete "$@"

# List the users with their use, newest first (--json: one JSON object a line)
[group('operate')]
[no-exit-message]
[positional-arguments]
users *ARGS:
    @python -m deploy.local users list "$@"

# Create a user and print its id and token, whatever SIGNUP is
[group('operate')]
[no-exit-message]
[positional-arguments]
add NAME:
    @python -m deploy.local users add "$@"

# Refuse all writes of a user, and stop the links; nothing is deleted
[group('operate')]
[no-exit-message]
[positional-arguments]
block USER:
    @python -m deploy.local users block "$@"

# Undo `block`
[group('operate')]
[no-exit-message]
[positional-arguments]
unblock USER:
    @python -m deploy.local users unblock "$@"

# Replace the token of a user who has lost it, and print the new one
[group('operate')]
[no-exit-message]
[positional-arguments]
token USER:
    @python -m deploy.local users token "$@"

# Give a user quotas of its own (--records N, --bytes N, --seconds N; N may be `default` or `unlimited`)
[group('operate')]
[no-exit-message]
[positional-arguments]
quota USER *ARGS:
    @python -m deploy.local users quota "$@"

# Delete records of any user, by their links or ids
[group('operate')]
[no-exit-message]
[positional-arguments]
remove +RECORDS:
    @python -m deploy.local remove "$@"

# Compare the database with the bucket (--deep: read every object, --rate BYTES_PER_SECOND; --repair, --yes; --json)
[group('operate')]
[no-exit-message]
[positional-arguments]
doctor *ARGS:
    @python -m deploy.local doctor "$@"

# Copy database and bucket to a folder or to s3://BUCKET/PREFIX, where the last backup may be; everything goes on meanwhile (--prune: remove the MP3s of deleted records)
[group('operate')]
[no-exit-message]
[positional-arguments]
backup DIR *ARGS:
    @cd {{quote(invocation_directory())}} && PYTHONPATH={{quote(justfile_directory())}} python -m deploy.local backup "$@"

# Put a backup into the stack, whose gateway and services stop meanwhile (--overwrite: even if it has users already)
[group('operate')]
[no-exit-message]
[positional-arguments]
restore DIR *ARGS:
    @cd {{quote(invocation_directory())}} && PYTHONPATH={{quote(justfile_directory())}} python -m deploy.local restore "$@"

# Check format, lint, types and import rules, and run all tests, one process per core (arguments go to pytest; -n 0: in one process)
[group('check')]
[positional-arguments]
test *ARGS: format lint check-gateway
    #!/bin/sh
    # The first run of mypy takes half a minute of one core, so it runs beside the tests. What it says stands behind them.
    types=$(mktemp)
    trap 'rm -f "$types"' EXIT
    trap 'exit 130' INT
    mypy >"$types" 2>&1 &
    {{run-just}} test-only "$@"
    tests=$?
    wait $! || tests=1
    echo mypy
    cat "$types"
    exit $tests

# Run all tests without these checks (arguments go to pytest)
[group('check')]
[positional-arguments]
test-only *ARGS:
    pytest -n logical --dist loadfile --no-loadscope-reorder "$@"

# Run the unit tests, which need no stack (arguments go to pytest)
[group('check')]
[positional-arguments]
test-unit *ARGS:
    @# No unit test uses schemathesis, and every process would load it.
    pytest -n logical --dist worksteal -p no:schemathesis tests/unit "$@"

# Show which documented responses the last tests have seen; fail if one was never seen, or one is not documented
[group('check')]
responses:
    @python -m tests.documented_responses

# Check that the code is formatted
[group('check')]
format:
    ruff format --check

# Check the code against the lint and import rules, and the manifests against the schemas of Kubernetes
[group('check')]
lint:
    ruff check
    lint-imports
    python -m tests.kubernetes.manifests

# Check the types
[group('check')]
types:
    mypy

# Format the code and fix what the linter can fix
[group('check')]
fix:
    ruff format
    ruff check --fix

# Let nginx check the gateway's configuration
[group('check')]
check-gateway:
    @python -m deploy.local check-gateway

# Write the OpenAPI documents that the services serve to docs/openapi
[group('upkeep')]
openapi:
    python -m deploy.upkeep.openapi

# Write the table of metrics in docs/operate.md
[group('upkeep')]
metrics:
    python -m deploy.upkeep.metrics_table

# Write the licences of all packages in the images into docs/licences.md
[group('upkeep')]
licences:
    python -m deploy.upkeep.licences

# Write what each image contains to sbom/, in CycloneDX's form (installs deploy/requirements-audit.txt into .audit)
[group('upkeep')]
sbom: install-audit
    python -m deploy.upkeep.sbom

# Ask the package index which pinned packages have known vulnerabilities (status 1: some; 3: it could not be asked)
[group('upkeep')]
[no-exit-message]
audit: install-audit
    @python -m deploy.upkeep.audit

# Test that `sbom` names every package and that `audit` says when it could not ask
[group('check')]
[positional-arguments]
test-audit *ARGS: install-audit
    pytest tests/audit "$@"

[private]
install-audit:
    @uv venv --quiet --allow-existing --python .venv/bin/python .audit
    @python -m pip --python .audit install --quiet --no-deps --require-hashes -r deploy/requirements-audit.txt

# Write VERSION into every file that has it, date its section of CHANGELOG.md, commit and tag; nothing is pushed
[group('upkeep')]
[no-exit-message]
release VERSION:
    @python -m deploy.upkeep.release {{VERSION}}

# Check the workflows in .github with actionlint, which is built once with Go (half a minute)
[group('check')]
lint-workflows:
    python -m tests.workflows

# Build the docs as a site in .docs/site; a broken link fails (REPOSITORY_URL: where links to code lead; installs docs/requirements.txt into .docs)
[group('upkeep')]
docs:
    @uv venv --quiet --allow-existing --python .venv/bin/python .docs
    @python -m pip --python .docs install --quiet --no-deps --require-hashes -r docs/requirements.txt
    @cp docs/package.json docs/package-lock.json .docs
    @PATH="$PWD/.docs/bin:$PATH" NODE_USE_SYSTEM_CA=1 npm ci --prefix .docs --loglevel=error --ignore-scripts --no-audit --no-fund
    @python -m deploy.upkeep.docs_site

# Draw the figures of docs/parallel-encoding.md anew, from music that the service encodes
[group('upkeep')]
figures:
    @python -m tests.bench.figures

# Renew all hash-pinned requirements (--upgrade: to the newest versions)
[group('upkeep')]
lock *ARGS:
    {{requirements}} {{ARGS}} services/users/pyproject.toml -o services/users/requirements.txt
    {{requirements}} {{ARGS}} services/records/pyproject.toml -o services/records/requirements.txt
    {{requirements}} {{ARGS}} libs/common/pyproject.toml services/users/pyproject.toml services/records/pyproject.toml requirements-dev.in -o requirements-dev.txt
    {{requirements}} {{ARGS}} --constraints services/records/requirements.txt --constraints requirements-dev.txt deploy/requirements-otel.in -o deploy/requirements-otel.txt
    {{requirements}} {{ARGS}} deploy/requirements-audit.in -o deploy/requirements-audit.txt
    {{requirements}} {{ARGS}} deploy/local/requirements-go.in -o deploy/local/requirements-go.txt
    {{requirements}} {{ARGS}} --no-deps deploy/requirements-backup.in -o deploy/requirements-backup.txt
    {{requirements}} {{ARGS}} --no-deps deploy/gateway/requirements.in -o deploy/gateway/requirements.txt
    {{requirements}} {{ARGS}} tests/sdks/requirements.in -o tests/sdks/requirements.txt
    {{requirements}} {{ARGS}} tests/drills/requirements.in -o tests/drills/requirements.txt
    {{requirements}} {{ARGS}} docs/requirements.in -o docs/requirements.txt

# Keep the services of a release, which the tests run on the schema of the next one (TAG: any revision of git)
[group('upkeep')]
keep-release TAG:
    git archive --format=zip -9 --output=tests/integration/previous_release.zip {{TAG}} libs/common/src services/users/src services/records/src

# Build and start everything in Docker (arguments go to `docker compose up`)
[group('docker')]
compose-up *ARGS: check-docker
    docker compose up --build --wait {{ARGS}}

# Ends with a sentence if Docker is absent or too old
[private]
[no-exit-message]
check-docker:
    @python -m deploy.docker_versions

# Stop what runs in Docker (-v: and delete its data)
[group('docker')]
compose-down *ARGS:
    docker compose down {{ARGS}}

# Show the logs of the containers (-f: go on showing)
[group('docker')]
compose-logs *ARGS:
    docker compose logs {{ARGS}}

# Show on one screen how everything in Docker is (--json)
[group('docker')]
[no-exit-message]
[positional-arguments]
compose-status *ARGS:
    @docker compose ps --services --status running | grep -qx records || { echo 'waxwing: the records service does not run: `docker compose up --build --wait` starts everything' >&2; exit 1; }
    @docker compose exec -T records python -m records status --cache-free-bytes "$(docker compose exec -T gateway df -kP /var/cache/waxwing | awk 'NR == 2 {printf "%.0f", $4 * 1024}')" "$@"

# Copy database and bucket of the containers to a folder (--prune: remove the MP3s of deleted records)
[group('docker')]
[positional-arguments]
compose-backup DIR *ARGS:
    @cd {{quote(invocation_directory())}} && mkdir -p -m 700 "$1" && {{run-backup}} back-up "$@"

# Put a backup into the containers; gateway and services stop meanwhile (--overwrite: even if they have users already)
[group('docker')]
[positional-arguments]
compose-restore DIR *ARGS:
    @# A backup that is refused stops nothing.
    @cd {{quote(invocation_directory())}} && {{run-backup}} restore "$@" --trial
    docker compose stop gateway users records
    @cd {{quote(invocation_directory())}} && {{run-backup}} restore "$@"
    docker compose up --wait

# Runs the container `backup` with a folder. A relative folder begins where the caller is.
[private]
[no-exit-message]
[positional-arguments]
run-backup COMMAND DIR *ARGS:
    @command=$1 && folder=$(cd {{quote(invocation_directory())}} && cd "$2" && pwd) && shift 2 && BACKUP_FOLDER=$folder BACKUP_USER=$(id -u):$(id -g) docker compose run --rm --build backup "$command" /backup "$@"

# Run the acceptance tests and the tests of the containers against what runs in Docker
[group('docker')]
[positional-arguments]
compose-test *ARGS:
    BASE_URL="http://127.0.0.1:${GATEWAY_PORT:-8080}" pytest tests/acceptance tests/compose "$@"

# If no image registry is reachable: start a Docker engine, and build images that replace the public ones
[group('docker')]
standins *ARGS:
    tests/compose/standins.sh {{ARGS}}

# Do what a stranger does, from a fresh clone to an MP3, and show minutes and megabytes (--ways local,docker; --keep: write RESULTS.md)
[group('check')]
first-run *ARGS:
    @python -m tests.first_run {{ARGS}}

# Open links in Chromium, which must be installed (Debian: apt-get install chromium)
[group('check')]
[positional-arguments]
test-browser *ARGS:
    pytest tests/browser "$@"

# Let Prometheus test its alerts and the dashboard's queries; it must be installed (Debian: apt-get install prometheus)
[group('check')]
[positional-arguments]
test-observability *ARGS:
    pytest tests/observability "$@"

# Apply the manifests to a real API server of Kubernetes, which is built once (11 minutes of CPU time); etcd must be installed (Debian: apt-get install --no-install-recommends etcd-server)
[group('check')]
[positional-arguments]
k8s-test *ARGS:
    @python -m tests.kubernetes.programs --build
    pytest tests/kubernetes "$@"

# Run the images on a node of Kubernetes, and the acceptance tests against it; root, Docker and Debian's containerd, containernetworking-plugins, etcd-server and iptables are needed
[group('check')]
[positional-arguments]
k8s-run *ARGS:
    python -m tests.kubernetes.node pytest -n logical --dist loadfile --no-loadscope-reorder tests/kubernetes_node tests/acceptance "$@"

# Start services behind right and wrong settings of PgBouncer, which must be installed (Debian: apt-get install pgbouncer; PGBOUNCER names another one)
[group('check')]
[positional-arguments]
test-pooler *ARGS:
    pytest tests/drills/test_pooler.py "$@"

# Follow requests through a stack with OpenTelemetry (installs deploy/requirements-otel.txt into .otel)
[group('check')]
[positional-arguments]
test-tracing *ARGS:
    @PYTHONPATH=$(python -m deploy.local.tracing) pytest tests/tracing "$@"

# Check the types of the page for people, which stand in its comments (installs TypeScript into .sdks)
[group('check')]
check-site: install-sdks
    PATH="$PWD/.sdks/bin:$PATH" .sdks/node_modules/.bin/tsc --project deploy/gateway

# Make the screenshots in docs/images anew
[group('upkeep')]
screenshots:
    mkdir -p docs/images
    SCREENSHOTS=docs/images pytest tests/browser/test_people.py

# Draw the charts in docs/images/charts anew, from tests/bench/RESULTS.md
[group('upkeep')]
charts:
    @python -m tests.bench.charts

# Generate clients in Python and TypeScript from docs/openapi, and use them (installs the generators into .sdks)
[group('check')]
[positional-arguments]
test-sdks *ARGS: install-sdks
    pytest tests/sdks "$@"

[private]
install-sdks:
    @uv venv --quiet --allow-existing --python .venv/bin/python .sdks
    @# pip and npm must find the certificates that the machine trusts, such as the one of a proxy. uv does not look for them.
    @python -m pip --python .sdks install --quiet --no-deps --require-hashes -r tests/sdks/requirements.txt
    @cp tests/sdks/package.json tests/sdks/package-lock.json .sdks
    @PATH="$PWD/.sdks/bin:$PATH" NODE_USE_SYSTEM_CA=1 npm ci --prefix .sdks --loglevel=error --ignore-scripts --no-audit --no-fund

# Look for bytes that break the WAV reader (arguments such as -runs=N and -seed=N go to libFuzzer; FILE: only this input)
[group('check')]
fuzz *ARGS:
    @python -m tests.fuzz.fuzz_wav {{ARGS}}

# Kill, stop and cut everything of a stack under load, then look whether anything is lost (--kills N, --seconds S, --seed X, --longest-stop S; --keep: write RESULTS.md)
[group('check')]
chaos *ARGS:
    @python -m tests.chaos.chaos {{ARGS}}

# Restart several instances in turn under load, and see whether they agree and what more of them bring (--keep: write RESULTS.md)
[group('check')]
drill-instances *ARGS:
    @python -m tests.drills.instances {{ARGS}}

# Kill a primary of PostgreSQL and stop the next one under load, with Patroni, etcd and haproxy (--short: only a crash; --keep: write RESULTS.md; Debian: apt-get install etcd-server haproxy)
[group('check')]
drill-database *ARGS:
    @uv venv --quiet --allow-existing --python .venv/bin/python .drills
    @python -m pip --python .drills install --quiet --no-deps --require-hashes -r tests/drills/requirements.txt
    @python -m tests.drills.database {{ARGS}}

# Upload and download through PgBouncer (--seconds S; --keep: write RESULTS.md; PGBOUNCER names the program)
[group('check')]
drill-pooler *ARGS:
    @python -m tests.drills.pooler {{ARGS}}

# Kill nodes of a MinIO of four under load, then look whether anything is lost (--keep: write RESULTS.md)
[group('check')]
drill-store *ARGS:
    @python -m tests.drills.store {{ARGS}}

# Use a stack for long with failures, and look whether memory or a count grows (--minutes 30, --seed X; --keep: write RESULTS.md)
[group('check')]
soak *ARGS:
    @python -m tests.chaos.soak {{ARGS}}

# Measure speeds and sizes as ratios (--quick: the short ones; --overload: too many uploads; --doctor; --keep: write RESULTS.md and its charts)
[group('check')]
bench *ARGS:
    @python -m tests.bench.bench {{ARGS}}
