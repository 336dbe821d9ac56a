"""What this machine's processor can do, as the kernel lists it."""


def has_cpu_flag(*names: str) -> bool:
    """Whether any of these is among its flags; False where the kernel keeps no such list."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line.split(":", 1)[1].split() for line in file if line.startswith(("flags", "Features"))), [])
    except OSError:
        return False
    return any(name in flags for name in names)
