"""The commands of the local stack: `python -m deploy.local up`."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import time
from collections.abc import Callable

from deploy.local.stack import Stack, StackError, check_gateway, find_stack
from deploy.local.supervision import AlreadyRunningError, LogReader

_NO_SPACE = os.strerror(errno.ENOSPC)


def _say(message: str) -> None:
    print(f"waxwing: {message}", file=sys.stderr, flush=True)


def _up(stack: Stack, detached: bool, with_prometheus: bool) -> int:
    # SIGTERM and a closed terminal stop the stack as Ctrl-C does.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    try:
        is_new = stack.start(_say, background=detached, with_prometheus=with_prometheus)
    except AlreadyRunningError as error:
        _say(str(error))
        print(stack.describe_addresses())
        return 1
    except KeyboardInterrupt:
        _say("stopped before it was ready")
        return 1
    _say("ready" if is_new else "the stack runs")
    print(stack.describe_addresses(), flush=True)
    if detached:
        return 0
    status = 0
    with LogReader(stack.supervisor, stack.process_names) as reader:
        try:
            _follow(stack, reader)
            if stack.is_left_over():
                _say("the supervisor was killed: stopping the rest …")
                status = 1
        except KeyboardInterrupt:
            _say("stopping …")
        finally:
            stack.stop(lambda: _print_new(reader))
            _print_new(reader)
    death = stack.supervisor.find_death()
    if death:
        _say(f"{death}, so everything was stopped. Its last log lines:")
        print(stack.supervisor.last_log_lines(death.split()[0]))
        return 1
    _say("stopped")
    return status


def _follow(stack: Stack, reader: LogReader) -> None:
    """Prints what the processes log, until the stack stops or a process dies."""
    while stack.supervisor.is_running() and stack.supervisor.find_death() is None:
        _print_new(reader)
        time.sleep(0.2)


def _print_new(reader: LogReader) -> None:
    for line in reader.new_lines():
        print(line, flush=True)


def _down(stack: Stack) -> int:
    was_running = stack.has_processes()
    stack.stop(say=_say)
    _say("stopped" if was_running else "nothing was running")
    return 0


def _logs(stack: Stack, names: list[str], count: int, follow: bool, is_raw: bool) -> int:
    unknown = sorted(set(names) - set(stack.process_names))
    if unknown:
        raise StackError(f"no process is called {unknown[0]}: there are {', '.join(stack.process_names)}")
    names = names or stack.process_names
    with LogReader(stack.supervisor, names, is_raw=is_raw) as reader:
        for line in reader.last_lines(count):
            print(line)
        if follow:
            _follow(stack, reader)
            _print_new(reader)
    return 0


def _ps(stack: Stack) -> int:
    if not stack.has_processes():
        death = stack.supervisor.find_death()
        _say(f"nothing runs: {death}, so everything was stopped" if death else "nothing runs")
        return 1
    table, problem = stack.describe_processes()
    print(table, flush=True)
    if problem:
        _say(problem)
    return 1 if problem else 0


def _reset(stack: Stack) -> int:
    _say("all data are deleted" if stack.reset() else "there was nothing to delete")
    return 0


def _check_gateway() -> int:
    print(check_gateway())
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="just", description="The whole of Waxwing on this machine without Docker."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything")
    up.add_argument("-d", "--detach", action="store_true", help="in the background")
    up.add_argument("--metrics", action="store_true", help="with Prometheus, which must be installed")
    logs = commands.add_parser("logs", help="show the latest log lines")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing new lines")
    logs.add_argument("-n", "--lines", type=int, default=50, metavar="LINES", help="how many of each process")
    logs.add_argument("--json", action="store_true", help="the lines as the processes write them")
    logs.add_argument("processes", nargs="*", metavar="PROCESS")
    commands.add_parser("down", help="stop what runs in the background")
    commands.add_parser("ps", help="show what runs")
    commands.add_parser("status", help="show how everything is")
    commands.add_parser("psql", help="open psql, which gets all further arguments")
    commands.add_parser("users", help="run an operator's command of the users service")
    commands.add_parser("remove", help="delete records of any user")
    commands.add_parser("doctor", help="compare the database with the bucket")
    commands.add_parser("backup", help="copy database and bucket to a folder")
    commands.add_parser("restore", help="put a backup into the stack")
    commands.add_parser("reset", help="stop everything and delete all data")
    commands.add_parser("check-gateway", help="check the gateway's configuration with nginx")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Runs one command. Returns the exit status."""
    # These pass all further arguments on.
    passing = ("psql", "status", "users", "remove", "doctor", "backup", "restore")
    end = 1 if arguments and arguments[0] in passing else len(arguments)
    parsed = _parse(arguments[:end])
    try:
        return _run(parsed, arguments[end:])
    except (StackError, RuntimeError, OSError) as error:
        _say(str(error))
        if _NO_SPACE in str(error):
            _say("the disk is full: free some space, then run the same command again")
        # For `doctor`, 1 means a finding, and for `remove` a record that is not there.
        return 2 if parsed.command in ("doctor", "remove") else 1
    except KeyboardInterrupt:
        return 130


def _run(parsed: argparse.Namespace, further: list[str]) -> int:
    stack = find_stack()
    commands: dict[str, Callable[[], int]] = {
        "up": lambda: _up(stack, parsed.detach, parsed.metrics),
        "down": lambda: _down(stack),
        "logs": lambda: _logs(stack, parsed.processes, parsed.lines, parsed.follow, parsed.json),
        "ps": lambda: _ps(stack),
        "status": lambda: stack.show_status(further),
        "psql": lambda: stack.psql(further),
        "users": lambda: stack.run_command("users", further),
        "remove": lambda: stack.run_command("records", ["remove", *further]),
        "doctor": lambda: stack.run_command("records", ["doctor", *further]),
        "backup": lambda: stack.back_up(further),
        "restore": lambda: stack.restore(further, _say),
        "reset": lambda: _reset(stack),
        "check-gateway": _check_gateway,
    }
    return commands[parsed.command]()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
