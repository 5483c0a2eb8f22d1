"""One KRaft node of Apache Kafka 4.2 on loopback, from jars that are fetched once."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from string import Template

HERE = Path(__file__).parent
JVM = (
    *("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xss512k"),
    *("-Djava.awt.headless=true", "-Dorg.apache.logging.log4j.level=WARN"),
)
START_S = 90.0
STEP_S = 0.05


def kafka_id() -> str:
    """Return a random id in the form of Kafka."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def jars() -> Path:
    """Return the folder of the jars, fetching them with Maven the first time; safe for concurrent callers."""
    cache = Path(os.environ.get("KAFKA_CACHE") or Path.home() / ".cache" / "agentlog-kafka")
    cache.mkdir(parents=True, exist_ok=True)
    pom = HERE / "pom.xml"
    libs = cache / f"libs-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not libs.exists():
            fetched = Path(tempfile.mkdtemp(dir=cache))
            goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
            done = subprocess.run(
                ["mvn", "-B", "-q", "-f", str(pom), *goal], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"mvn failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            fetched.rename(libs)
    return libs


def java() -> str:
    """Return the Java to use: JAVA_HOME's, else the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    assert found, "no Java: set JAVA_HOME or put java on PATH (17 or newer)"
    return found


class ApacheKafka:
    """A node in a folder; the same folder keeps its port and its records over restarts."""

    def __init__(self, folder: Path, doors: int = 0, **properties: str) -> None:
        """`doors` is the number of further ports; all are chosen together, because none is in use before the start."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.data_dir = folder, folder / "log"
        self._classpath = os.pathsep.join(sorted(str(jar) for jar in jars().glob("*.jar")))
        self.port, self.controller_port, *self.door_ports = free_ports(2 + doors)
        template = Template((HERE / "server.properties.template").read_text())
        ports = {"voters": f"1@127.0.0.1:{self.controller_port}", "port": self.port, "cport": self.controller_port}
        self._config = folder / "server.properties"
        self._config.write_text(template.substitute(ports, node=1, logdir=self.data_dir, rf=1, isr=1))
        self.configure({key.replace("_", "."): value for key, value in properties.items()})
        self.format_words: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, properties: Mapping[str, str]) -> None:
        """Add properties, which override earlier ones; the next start reads them."""
        with self._config.open("a") as config:
            config.writelines(f"{key}={value}\n" for key, value in properties.items())

    @property
    def bootstrap(self) -> str:
        """Return the address clients connect to."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> "ApacheKafka":
        """Format the folder the first time, start, and wait until a metadata request is answered."""
        if not (self.data_dir / "meta.properties").exists():
            self._format()
        with (self._folder / "kafka.out").open("ab") as out:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._config)),
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        end = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, f"Kafka ended:\n{self._output()}"
            assert time.monotonic() < end, f"Kafka is not ready:\n{self._output()}"
            time.sleep(STEP_S)
        return self

    def stop(self) -> None:
        """Stop in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)

    def _java(self, *words: str) -> list[str]:
        return [java(), *JVM, "-cp", self._classpath, *words]

    def _format(self) -> None:
        words = ["kafka.tools.StorageTool", "format", "-t", kafka_id(), "-c", str(self._config), *self.format_words]
        done = subprocess.run(self._java(*words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _answers(self) -> bool:
        """Request metadata (version 1, no topics): a connection alone succeeds too early."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as connection:
                connection.settimeout(2)
                request = struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", 0)
                connection.sendall(struct.pack(">i", len(request)) + request)
                with connection.makefile("rb") as answer:
                    size = struct.unpack(">i", answer.read(4))[0]
                    (brokers,) = struct.unpack_from(">i", answer.read(size), 4)
                    return bool(brokers)
        except (OSError, struct.error):
            return False

    def _output(self) -> str:
        return (self._folder / "kafka.out").read_text(errors="replace")[-3000:]


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
