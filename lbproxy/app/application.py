"""The composition root: builds every part, wires them, owns the root TaskGroup, the signals and the one pool timer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Final

from lbproxy.accesslog.writer import AccessLog
from lbproxy.admin.contract import Refused
from lbproxy.admin.server import AdminServer
from lbproxy.app import changes, limits, logs
from lbproxy.app.announcing import Announcer, consul_agents, prepare
from lbproxy.app.binds import BindError, inherited_sockets
from lbproxy.app.draining import drain
from lbproxy.app.effects import EffectRunner
from lbproxy.app.following import Sources
from lbproxy.app.keys import Keys
from lbproxy.app.operations import AdminOperations
from lbproxy.app.own import OwnAddresses
from lbproxy.app.readings import read
from lbproxy.app.records import recorder
from lbproxy.app.relays import make_relay, relay_fds, why_not
from lbproxy.app.reloading import Reloader
from lbproxy.app.remote import Remote
from lbproxy.app.running import Running
from lbproxy.config.load import Loaded
from lbproxy.config.options import LogOptions
from lbproxy.discovery.snapshots import Snapshots
from lbproxy.domain.effects import Effect
from lbproxy.metrics.render import render
from lbproxy.proxy.admission import Capacity
from lbproxy.proxy.dialing import Dialer
from lbproxy.wire.http import HttpClient
from lbproxy.wire.resolver import Resolver
from lbproxy.wire.secrets import SecretError
from lbproxy.wire.systemd import InheritError, Notifier, inherited

logger = logging.getLogger("lbproxy.app")


class StartError(Exception):
    """The program cannot start; `errors` has a line for each reason. `usage`: the configuration asks for what is not here."""

    def __init__(self, errors: Sequence[str], *, usage: bool = False) -> None:
        super().__init__("; ".join(errors))
        self.errors = tuple(errors)
        self.usage = usage


# When Python looks for garbage in cycles, of which little is made here. By its own thresholds (700, 10, 10) a registry's answers of
# ten thousand entries made it look through everything every seventh time, which held the loop for 25 ms; with these, not once in 60 answers.
COLLECTIONS: Final = (2000, 5, 100)

# What a reload took away and sessions still use: how long after their end its name may be shown.
LOOK_AGAIN_S: Final = 1.0


class Application:
    """One run of the proxy. `reread` reads the configuration again, in a thread; it raises `config.load.ConfigError`.
    `remote` is the part of it that stands in Consul, if one does. `ends_process`: nothing comes after it, so a signal that is still sent
    while the last of it is cleared away must not change the exit status."""

    def __init__(
        self,
        loaded: Loaded,
        reread: Callable[[], Loaded],
        environ: Mapping[str, str],
        remote: Remote | None = None,
        *,
        ends_process: bool = False,
    ) -> None:
        self._ends_process = ends_process
        self._loaded = loaded
        self._reread = reread
        self._environ = environ
        self._remote = remote
        self._keys: Keys | None = None
        self._admin: AdminServer | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._hangup = asyncio.Event()
        self._drain_deadline_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._advancing = False
        self._told_to_stop = False
        self._log_options: LogOptions | None = None
        self._http = HttpClient(Resolver().resolve)
        self.started = asyncio.Event()
        self.cut = 0

    async def run(self) -> None:
        """Serve until told to stop, then drain. Raises StartError when nothing could be started."""
        loop = asyncio.get_running_loop()
        # From the first moment to the last: a manager may signal as soon as it hears READY=1, and again while we close.
        with self._signals(loop):
            self._build(loop)
            try:
                async with asyncio.TaskGroup() as group:
                    await self._serve(group)
            finally:
                # Only now: until its task has ended, a source may still be asking.
                await self._http.close()
                self._close()

    def stop(self, deadline_s: float | None = None) -> None:
        """Begin to drain. `deadline_s` stands in for `runtime.drain_timeout`; once draining, another call changes nothing."""
        if not self._stop.is_set():
            self._drain_deadline_s = deadline_s
            self._stop.set()

    def _signalled(self) -> None:
        """SIGTERM or SIGINT: drain; the second one: at once. (A drain that was asked for over the API does not count as the first.)"""
        if self._told_to_stop:
            self._hurry.set()
        self._told_to_stop = True
        self.stop()

    # -- building

    def _build(self, loop: asyncio.AbstractEventLoop) -> None:
        configuration = self._loaded.configuration
        runtime = configuration.runtime
        missing = why_not(runtime.relay)
        if missing is not None:
            raise StartError([f"runtime.relay: native: {missing}"], usage=True)
        if configuration.admin.token is not None:
            try:
                configuration.admin.token.reveal()
            except SecretError as error:
                raise StartError([f"admin.token: {error}"], usage=True) from error
        for line in self._loaded.warnings:
            logger.warning("%s", line)
        prepare(configuration.registration)
        nofile = limits.raise_fd_limit()
        capacity = Capacity(
            limits.max_connections(
                runtime.max_connections, nofile, limits.memory_limit_bytes(), relay_fds(runtime.relay)
            )
        )
        if isinstance(runtime.max_connections, int) and capacity.limit < runtime.max_connections:
            logger.warning(
                "runtime.max_connections: %d do not fit into %d open files: %d it is",
                runtime.max_connections,
                nofile,
                capacity.limit,
            )
        self._rng = random.Random()
        self._effects = EffectRunner()
        dialer = Dialer(loop, capacity, self._rng, self.apply, None)
        try:
            relay = make_relay(runtime.relay, loop, dialer.on_events)
        except OSError as error:
            raise StartError([f"runtime.relay: {runtime.relay.kind}: {error}"]) from error
        dialer.attach(relay)
        self._effects.attach(relay, dialer)
        self.running = Running(loop, self._loaded, capacity, dialer, relay)
        self._notifier = Notifier(self._environ)
        logger.info(
            "lbproxy %s: pid %d, Python %s, %s, relay %s, %d open files, at most %d connections",
            version("lbproxy"),
            os.getpid(),
            platform.python_version(),
            event_loop_name(loop),
            relay.name,
            nofile,
            capacity.limit,
        )

    def apply(self, effects: Sequence[Effect]) -> None:
        """Carry out effects, and look again at when the pools' next deadline is."""
        self._effects(effects)
        if not self._advancing:
            self._advancing = True
            self.running.loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._advancing = False
        loop = self.running.loop
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = loop.time()
        due: list[float] = []
        for upstream in [*self.running.upstreams.values(), *self.running.departed]:
            effects, next_due = upstream.pool.advance(now)
            self._effects(effects)
            if next_due is not None:
                due.append(next_due)
        if self.running.forget_departed():
            due.append(now + LOOK_AGAIN_S)
        if due:
            self._timer = loop.call_at(max(min(due), now + 0.01), self._advance)

    # -- serving

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        running = self.running
        sources = self._sources(group)
        reloader = Reloader(running, sources, self._read_again, self._notifier, self._reconfigured)
        try:
            inherited_now = inherited_sockets(inherited(self._environ))
            changes.apply(running, self._loaded, sources, inherited_now)
        except BindError as error:
            raise StartError(error.explained()) from error
        except InheritError as error:
            raise StartError([f"inherited socket: {error}"]) from error
        for address, unused in inherited_now.items():
            logger.warning("inherited socket %s: no listener binds it; closed", address)
            unused.close()
        self._configured()
        operations = AdminOperations(
            running,
            self.apply,
            self.stop,
            reloader.reload,
            lambda: self._announcer.statuses,
            lambda: [] if self._keys is None else self._keys.warnings,
        )
        self._announcer = Announcer(
            group, running, lambda: operations.readiness(strict=False), consul_agents(self._http), self._rng
        )
        admin = self._admin = AdminServer(operations, self._render, self._loaded.configuration.admin)
        try:
            await admin.start()
        except OSError as error:
            raise StartError([f"admin: {error.strerror or error}"]) from error
        try:
            # What lives as long as the process need not be looked at by every collection: a full one holds the loop for milliseconds.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*COLLECTIONS)
            self._announcer.configure(running.loaded.configuration.registration)
            self._tell_started(admin.addresses)
            side_tasks = [
                group.create_task(self._follow_hangups(reloader), name="reload on SIGHUP"),
                group.create_task(self._notifier.watchdog(asyncio.sleep), name="systemd watchdog"),
            ]
            if self._remote is not None:
                self._keys = self._follow_keys(self._remote, reloader)
                side_tasks.append(group.create_task(self._keys.run(), name="configuration in Consul"))
            await self._stop.wait()
            self._notifier.stopping()
            self.cut = await drain(running, self._hurry, self._drain_deadline_s, self._announcer.leave)
            for task in side_tasks:
                task.cancel()
        finally:
            await self._announcer.close()
            await admin.close()
            for upstream in running.upstreams.values():
                upstream.stop_following()

    def _sources(self, group: asyncio.TaskGroup) -> Sources:
        clock = self.running.loop.time
        state_dir = self._loaded.configuration.runtime.state_dir
        own = OwnAddresses(self.running, lambda: () if self._admin is None else self._admin.addresses, clock)
        return Sources(
            group,
            self.apply,
            Resolver().resolve,
            own.is_listener,
            clock,
            self._rng,
            own.is_admin,
            None if state_dir is None else Snapshots(state_dir / "discovery"),
            self._http,
        )

    def _configured(self) -> None:
        """Bring what hangs on the configuration, but on no listener and no upstream, up to date."""
        options = self.running.loaded.configuration.log
        logs.configure(options.level, options.format, sys.stderr)
        previous = self.running.access_log
        if previous is not None and options == self._log_options:
            return
        self._log_options = options
        if previous is not None:
            self.running.retired_logs.append(previous)
            # It writes what it holds; a stuck reader of the log must not hold the loop meanwhile.
            self.running.loop.run_in_executor(None, previous.close)
        access = None
        if options.access.enabled:
            kind = logs.chosen(options.format, sys.stderr)
            access = AccessLog(sys.stderr.fileno(), kind, options.access, self.running.loop.call_later)
        self.running.access_log = access
        self.running.dialer.log = recorder(access) if access is not None else None

    def _read_again(self) -> Loaded:
        """In a thread, where importing does not hold up the loop."""
        loaded = self._reread()
        prepare(loaded.configuration.registration)
        return loaded

    def _follow_keys(self, remote: Remote, reloader: Reloader) -> Keys:
        from lbproxy.wire.consul import ConsulClient  # noqa: PLC0415 - slow to import, and needed by few

        if remote.refused:
            self.running.reloads["invalid"] += 1
            self.running.last_reload_successful = False
        client = ConsulClient(remote.access, self._http)
        assert self._admin is not None
        admin = self._admin.addresses[0]
        instance = f"{platform.node()}:{admin.port or admin.host}"
        return Keys(remote, client, self.running, reloader.reload, instance, self._rng)

    def _reconfigured(self) -> None:
        self._configured()
        if self._keys is not None:
            self._keys.took()
        self._announcer.configure(self.running.loaded.configuration.registration)
        assert self._admin is not None
        try:
            self._admin.set_token(self.running.loaded.configuration.admin.token)
        except OSError as error:
            logger.error("reload: admin.token stays as it was: %s", error)  # noqa: TRY400 - the message says all

    async def _render(self, accept: str) -> tuple[list[bytes], str]:
        return await render(
            lambda: read(self.running, self._build_labels(), self._announcer.statuses),
            accept,
            self.running.loaded.configuration.metrics,
        )

    def _build_labels(self) -> dict[str, str]:
        return {
            "version": version("lbproxy"),
            "python": platform.python_version(),
            "event_loop": event_loop_name(self.running.loop),
            "relay": self.running.relay.name,
        }

    def _tell_started(self, admin: Sequence[object]) -> None:
        for listener in self.running.listeners.values():
            logger.info(
                "listener %s: %s -> upstream %s",
                listener.name,
                ", ".join(map(str, listener.addresses)),
                listener.options.upstream,
            )
        logger.info("admin: %s", ", ".join(map(str, admin)))
        if self._loaded.configuration.runtime.state_dir is None:
            logger.info("runtime.state_dir: none; nothing is kept across restarts")
        self._notifier.ready()
        self.started.set()

    async def _follow_hangups(self, reloader: Reloader) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            try:
                await reloader.reload()
            except Refused as refusal:
                logger.debug("reload: %s", refusal)  # told line by line already
            except Exception:
                logger.exception("reload failed")

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        stop = self._signalled
        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: self._hangup.set}
        taken = []
        for number, handler in handlers.items():
            # Only the main thread of the main interpreter gets signals; elsewhere (a test) `stop` is called directly.
            with contextlib.suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, handler)
                taken.append(number)
        try:
            yield
        finally:
            if self._ends_process:
                signal.pthread_sigmask(signal.SIG_BLOCK, taken)
            for number in taken:
                loop.remove_signal_handler(number)
                if self._ends_process:
                    signal.signal(number, signal.SIG_IGN)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for listener in self.running.listeners.values():
            listener.close()
        self.running.relay.close()
        if self.running.access_log is not None:
            self.running.access_log.close()


def event_loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """`uvloop` or `asyncio`, as metrics and the version command name it."""
    return "uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"
