"""This machine -> the facts that a measurement depends on: processor, memory, versions, sensors. Standard library only.

No function raises. Facts that the system does not provide are left out.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .opencv import WHEELS

PACKAGES = (
    "facerecon-rt",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    *WHEELS,
    "tensorrt",
)
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
"""Processor flags that decide how fast float32 and int8 are."""
NVIDIA_SMI = ("name", "driver_version", "pstate", "clocks.sm", "temperature.gpu", "power.draw", "power.limit")
NVIDIA_IDLE = ("pstate", "clocks.sm", "temperature.gpu", "power.draw")

Facts = dict[str, str]


def machine() -> Facts:
    """Return the facts that do not change while a program runs."""
    cpuinfo = _cpuinfo()
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    facts = {
        "board": board(),
        "processor": cpuinfo.get("model name", "") or platform.processor() or platform.machine(),
        "instructions": " ".join(name for name in INSTRUCTIONS if name in flags),
        "cores usable": str(usable_cores()),
        "memory": _memory(),
        "system": platform.platform(),
        "power mode": power_mode(),
        "JetPack": jetpack(),
        "gpu": "; ".join(", ".join(gpu.values()) for gpu in gpus(NVIDIA_SMI[:2])),
        "Python": platform.python_version(),
        **_versions(),
    }
    return {name: fact for name, fact in facts.items() if fact}


def sensors() -> Facts:
    """Return the facts that change: load, clocks, temperatures, power."""
    facts = {
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "clock MHz": _cpuinfo().get("cpu MHz", ""),
        "governor": governor(),
    }
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        degrees = _read(zone / "temp")
        if degrees.lstrip("-").isdigit():
            facts[f"{_read(zone / 'type') or zone.name}, degrees C"] = f"{int(degrees) / 1000:.1f}"
    for sensor in sorted(Path("/sys/class/hwmon").glob("hwmon*/power*_input")):
        microwatts = _read(sensor)
        if microwatts.isdigit():
            label = _read(sensor.with_name(sensor.name.replace("_input", "_label")))
            facts[f"{_read(sensor.parent / 'name')} {label or sensor.stem}, W"] = f"{int(microwatts) / 1e6:.2f}"
    if jetpack():
        facts["tegrastats"] = first_line_of(["tegrastats", "--interval", "100"])
    for index, gpu in enumerate(gpus(NVIDIA_IDLE)):
        facts |= {f"gpu {index} {name}": value for name, value in gpu.items()}
    return {name: fact for name, fact in facts.items() if fact}


def _versions() -> Facts:
    """Return the versions of the relevant packages that are installed."""
    versions = {package: installed_version(package) for package in PACKAGES}
    return {package: version for package, version in versions.items() if version}


def installed_version(package: str) -> str:
    """Return the version of a package; "" where it is not installed."""
    # The import takes a tenth of the start-up time, so it is done only here.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def usable_cores() -> int:
    """Return the number of cores this process may run on. A container may limit their time further."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def board() -> str:
    """Return the name of a single-board computer from its device tree; "" for other machines."""
    return _read("/proc/device-tree/model").rstrip("\0")


def jetpack() -> str:
    """Return the release of Jetson Linux; "" elsewhere."""
    return _read("/etc/nv_tegra_release").partition("\n")[0]


def governor() -> str:
    """Return the policy that sets the clock of the first core."""
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def power_mode() -> str:
    """Return the power mode of a Jetson from `nvpmodel`; "" elsewhere."""
    lines = output_of(["nvpmodel", "-q"]).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if "Power Mode" in line), "")


def fastest_power_mode(conf: str | Path = "/etc/nvpmodel.conf") -> str:
    """Return the number of a Jetson's mode without limits, which differs between boards; "" where there is none."""
    modes = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=MAXN\w*\s*>", _read(conf))
    return modes[0] if modes else ""


def gpus(wanted: Sequence[str]) -> list[Facts]:
    """Return the queried facts of each GPU from nvidia-smi."""
    output = output_of(["nvidia-smi", f"--query-gpu={','.join(wanted)}", "--format=csv,noheader"])
    return [
        dict(zip(wanted, (value.strip() for value in line.split(",")), strict=False)) for line in output.splitlines()
    ]


def output_of(command: Sequence[str]) -> str:
    """Return a program's standard output; "" where it does not exist, fails, or takes more than ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, errors="replace")
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def first_line_of(command: Sequence[str]) -> str:
    """Return the first line of a program that runs for ever; "" where it does not exist or prints nothing."""
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            line = process.stdout.readline() if process.stdout else ""
            process.terminate()
    except OSError:
        return ""
    return line.strip()


def _memory() -> str:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal"):
            return f"{int(line.split()[1]) / 2**20:.1f} GiB"
    return ""


def _cpuinfo() -> Facts:
    """Return the facts of the first core."""
    first = _read("/proc/cpuinfo").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
