"""The run: everything is started, each figure is taken of every target in turn, and everything is stopped again."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec

from bench.gateway import builds, targets
from bench.gateway.builds import say
from bench.gateway.measures import Load, Measure, Runs, read_load
from bench.gateway.options import Options
from bench.gateway.portico import Portico
from bench.gateway.processes import CannotMeasure, Children, cores, cpu_s, memory_kb, pin, unused_ports, wait_until
from bench.gateway.targets import PLAIN, SLOW, TLS, Target, Way

MODELS = {PLAIN: "fake", SLOW: "fake-slow", TLS: "fake-tls"}  # as Portico names them, by upstream
BODIES = {"body-1k": 1_000, "body-100k": 100_000, "body-2m": 2_000_000}
REST_S = 180.0  # the longest we wait for the books
STREAM_CHUNKS = 20


def most_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


class Bench:
    """One run. What could not be measured is told in `notes`."""

    def __init__(self, options: Options, children: Children, folder: Path) -> None:
        self.options = options
        self.cores = cores()
        self.runs: Runs = {}
        self.notes: list[str] = []
        self.chain: list[str] = []
        self.targets: dict[str, Target] = {}
        self.portico_python = Path(options.python)
        self.litellm_python: Path | None = None
        self._children = children
        self._folder = folder
        self._porticos: dict[str, Portico] = {}
        self._memory: dict[str, int] = {}  # of each target before it held any stream, KB
        self._warmed: set[str] = set()
        self._rest_s = REST_S

    def note(self, text: str) -> None:
        say(text)
        self.notes.append(text)

    # --- starting ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the upstreams and every target. Raises `CannotMeasure` for what there is no run without."""
        pin([os.getpid()], self.cores.load)
        self._load = builds.program("load")
        if self.options.own_environment:
            self.portico_python = builds.portico_environment(self.options.python) / "python"
        self._plain, self._slow, tls = unused_ports(3)
        for port, delay_ms in ((self._plain, 50), (self._slow, 1000)):
            command = [builds.program("upstream"), "-p", port, "-d", delay_ms]
            self._children.start(f"upstream-{delay_ms}", command, self.cores.load)
        self._trust = builds.trust(self._folder)
        self._values = {
            "DIR": self._folder, "PLAIN": self._plain, "SLOW": self._slow, "TLS": tls, "FILES": most_files(),
            "CA": self._trust.ca, "CERTIFICATE": self._trust.certificate, "KEY": self._trust.key,
        }  # fmt: skip
        self._come_up(Target("direct", {PLAIN: Way(f"http://127.0.0.1:{self._plain}/v1")}), 10)
        self._peer("nginx", self._start_nginx)
        upstreams = {MODELS[PLAIN]: f"http://127.0.0.1:{self._plain}/v1"}
        upstreams[MODELS[SLOW]] = f"http://127.0.0.1:{self._slow}/v1"
        if "nginx" in self.targets:
            upstreams[MODELS[TLS]] = f"https://localhost:{tls}/v1"
        elif self._wants("tls"):
            self.note("the HTTPS upstream is left out: it is nginx that speaks TLS in front of the fake one")
        self._start_portico("portico", upstreams)
        self._peer("litellm", self._start_litellm)

    def _wants(self, what: str) -> bool:
        return what not in self.options.without

    def _peer(self, name: str, start: Callable[[], None]) -> None:
        """A peer that cannot be had is left out, and said so."""
        if not self._wants(name):
            self.note(f"{name} is left out, as was asked for")
            return
        try:
            start()
        except CannotMeasure as error:
            self.targets.pop(name, None)
            self.note(f"{name} is left out: {error}")

    def _start_nginx(self) -> None:
        ports = dict(zip((PLAIN, SLOW, TLS), unused_ports(3), strict=True))
        targets.start_tls(self._children, self.cores.load, self._folder, self._values)
        nginx = targets.start_nginx(self._children, self.cores.gateway, self._folder, ports, self._values)
        self._come_up(nginx, 10)

    def _start_litellm(self) -> None:
        bin = builds.litellm_environment(self.options.python)
        self.litellm_python = bin / "python"
        port = unused_ports(1)[0]
        say("starting LiteLLM")
        self._come_up(
            targets.start_litellm(self._children, bin, self.cores.gateway, self._folder, port, self._plain), 180
        )

    def _start_portico(self, name: str, upstreams: dict[str, str]) -> Portico:
        say(f"starting {name}")
        made = Portico(
            name, self._children, self.cores, self.portico_python, self._folder / f"{name}-data", self._trust.ca
        ).start()
        self._porticos[name] = made
        key = made.set_up(upstreams)
        self.chain = made.chain(key)
        ways = {upstream: Way(f"{made.url}/v1", model) for upstream, model in MODELS.items() if model in upstreams}
        self._come_up(Target(name, ways, key, made.web, made.side), 30)
        return made

    def _come_up(self, target: Target, within_s: float) -> None:
        """Wait until it answers through each of its ways."""
        for upstream in target.ways:
            told = ["no answer"]

            def answers(upstream: str = upstream, told: list[str] = told) -> bool:
                measure = self._run(target, upstream, "-n", 1, "-T", 5)
                told[0] = measure.first_error or told[0]
                return measure.load.ok == 1

            if not wait_until(answers, within_s):
                raise CannotMeasure(f"{target.name} did not answer in {within_s:.0f} s ({told[0]})")
        self.targets[target.name] = target

    # --- one measurement -----------------------------------------------------------------------------------------

    def _run(self, target: Target, upstream: str, *arguments: object, limit_s: float = 30) -> Measure:
        """`load` on a target, with the CPU it cost the gateway. Raises `CannotMeasure` when `load` itself fails."""
        way = target.ways[upstream]
        command = [self._load, "-k", target.key, "-m", way.model, "-T", limit_s, *arguments, way.url]
        portico = self._porticos.get(target.name)
        before, side = cpu_s(target.gateway), {name: cpu_s(pids) for name, pids in target.side.items()}
        try:
            with portico.alone() if portico else nullcontext():
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=limit_s + 30)
            load: Load = read_load(done.stdout)
        except (subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
            raise CannotMeasure(f"load on {target.name} told nothing: {error}") from None
        measure = Measure(load=load, cpu_s=cpu_s(target.gateway) - before)
        measure.first_error = done.stderr.removeprefix("first error: ").strip()[:300] or None
        if portico:
            if not portico.rest(self._rest_s):
                self.note(
                    f"the books of {target.name} were not done in {self._rest_s:.0f} s: they share a core with the load"
                )
                self._rest_s = 20.0
            measure.side_s = {name: cpu_s(pids) - side[name] for name, pids in target.side.items()}
        return measure

    def _take(self, what: str, target: Target, upstream: str, *arguments: object, limit_s: float = 30) -> Measure:
        """A measurement that is kept."""
        processes = self._porticos[target.name].workers() if target.name in self._porticos else None
        measure = self._run(target, upstream, *arguments, limit_s=limit_s)
        if processes is not None and self._porticos[target.name].workers() != processes:
            self.note(f"{what}: a web process of {target.name} was replaced meanwhile; its figures are not to be used")
        self.runs.setdefault(what, {}).setdefault(target.name, []).append(measure)
        load = measure.load
        failed = f", {load.errors} errors: {measure.first_error}" if load.errors else ""
        say(
            f"{what:<10} {target.name:<14} {load.rps:>9.1f} req/s  {measure.cpu_us or 0:>9.1f} CPU-µs a request{failed}"
        )
        return measure

    def _warm(self, target: Target, upstream: str = PLAIN, *arguments: object) -> None:
        """Longer the first time: some speed up over their first ten seconds."""
        name = f"{target.name} {upstream}"
        seconds = 1.0 if name in self._warmed else self.options.warm_s
        self._warmed.add(name)
        self._run(target, upstream, "-c", 16, "-s", seconds, *arguments, limit_s=seconds + 15)

    # --- the figures ---------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Every figure of every target, in turn, so that noise falls on all alike."""
        parts: Sequence[tuple[str, Callable[[], None]]] = (
            ("held", self._hold_streams),
            ("bodies", self._send_bodies),
            ("tls", self._speak_tls),
            ("keys", self._use_keys),
            ("models", self._offer_models),
        )
        self._repeat(self._compare)
        for name, part in parts:
            if not self._wants(name):
                continue
            try:
                part()
            except CannotMeasure as error:
                self.note(f"{name}: {error}")

    def _repeat(self, act: Callable[[], None]) -> None:
        for number in range(self.options.repeats):
            say(f"repeat {number + 1} of {self.options.repeats}")
            act()

    def _compare(self) -> None:
        """Requests at full speed, requests at a low rate, and streams."""
        options = self.options
        for target in self.targets.values():
            self._warm(target)
            seconds = options.seconds
            self._take("capacity", target, PLAIN, "-c", options.connections, "-s", seconds, limit_s=seconds + 15)
            seconds = options.latency_s
            self._take("latency", target, PLAIN, "-r", options.rate, "-c", 100, "-s", seconds, limit_s=seconds + 15)
            count = options.streams * (2 if options.quick else 5)
            self._take(
                "stream", target, PLAIN, "-S", "-c", options.streams, "-n", count, "-x", STREAM_CHUNKS, limit_s=60
            )

    def _ours_and(self, *names: str) -> list[Target]:
        return [self.targets[name] for name in (*names, "portico") if name in self.targets]

    def _hold_streams(self) -> None:
        options = self.options
        most = (most_files() - 500) // 2  # a gateway needs two files a stream
        if most < options.held_slow:
            self.note(f"only {most} streams are held: a stream needs two files, and a process may have {most_files()}")
            options.held_slow, options.held_fast = most, min(options.held_fast, most)
        for target in self._ours_and("nginx"):
            self._memory[target.name] = memory_kb(target.gateway)

        def hold() -> None:
            for target in self._ours_and("nginx"):
                self._hold("held-fast", target, PLAIN, options.held_fast, 80)
                self._hold("held-slow", target, SLOW, options.held_slow, 10 if options.quick else 30)

        self._repeat(hold)

    def _hold(self, what: str, target: Target, upstream: str, count: int, chunks: int) -> None:
        """So many streams at once, arriving at 500 a second; memory is told beside what it was before the first."""
        ended = threading.Event()
        most = [0]

        def watch() -> None:
            while not ended.wait(0.5):
                most[0] = max(most[0], memory_kb(target.gateway))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            measure = self._take(
                what, target, upstream, "-S", "-c", count, "-n", count, "-x", chunks, "-R", 500, limit_s=120
            )
        finally:
            ended.set()
            watcher.join()
        measure.kb_a_stream = max(0, most[0] - self._memory[target.name]) / count

    def _send_bodies(self) -> None:
        options = self.options

        def send() -> None:
            for target in self._ours_and("nginx"):
                for what, size in BODIES.items():
                    few = ("-c", options.body_connections, "-b", size)
                    self._run(target, PLAIN, *few, "-s", 1)
                    self._take(what, target, PLAIN, *few, "-s", options.seconds, limit_s=options.seconds + 30)

        self._repeat(send)

    def _speak_tls(self) -> None:
        options = self.options
        speakers = [target for target in self._ours_and("nginx") if TLS in target.ways]

        def speak() -> None:
            for target in speakers:
                self._warm(target, TLS)
                self._take(
                    "tls", target, TLS, "-c", options.connections, "-s", options.seconds, limit_s=options.seconds + 15
                )

        if speakers:
            self._repeat(speak)

    def _use_keys(self) -> None:
        options, ours = self.options, self.targets["portico"]
        many, few = self._folder / "many-keys", self._folder / "few-keys"
        say(f"making {options.many_keys} keys")
        self._porticos["portico"].seed("keys", options.many_keys, MODELS[PLAIN], many)
        texts = many.read_text().split()
        few.write_text("\n".join(texts[:: max(1, len(texts) // options.few_keys)][: options.few_keys]) + "\n")

        def use() -> None:
            for what, file in (("keys-few", few), ("keys-many", many)):
                self._warm(ours, PLAIN, "-K", file)
                self._take(
                    what, ours, PLAIN, "-K", file, "-c", options.connections, "-s", options.seconds,
                    limit_s=options.seconds + 15,
                )  # fmt: skip

        self._repeat(use)

    def _offer_models(self) -> None:
        """On a second Portico, so that few and many can take turns."""
        options = self.options
        large = self._start_portico("portico-large", {MODELS[PLAIN]: f"http://127.0.0.1:{self._plain}/v1"})
        say(f"making {options.many_models} models")
        large.seed("models", options.many_models - 1, MODELS[PLAIN])

        def offer() -> None:
            for what, name in (("models-few", "portico"), ("models-many", "portico-large")):
                self._warm(self.targets[name])
                measure = self._take(
                    what, self.targets[name], PLAIN, "-c", options.connections, "-s", options.seconds,
                    limit_s=options.seconds + 15,
                )  # fmt: skip
                if name != "portico":
                    self.runs[what].setdefault("portico", []).append(measure)

        try:
            self._repeat(offer)
        finally:
            self.runs.get("models-many", {}).pop("portico-large", None)
            large.stop()
            del self.targets["portico-large"]
