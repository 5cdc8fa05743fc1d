import os, re, sys

needles = [(sys.argv[1] + sys.argv[2]).encode(), (sys.argv[3] + sys.argv[4]).encode()]
own, looked, hits = os.getpid(), 0, set()


def look(place, data):
    global looked
    looked += 1
    for name, needle in zip(("secret", "control"), needles):
        if needle in data:
            hits.add(f"{name} {place}")


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


for pid in filter(str.isdigit, os.listdir("/proc")):
    look("environ", read(f"/proc/{pid}/environ"))
    look("cmdline", read(f"/proc/{pid}/cmdline"))
    for name in ("auxv", "comm", "maps", "mountinfo", "net/unix", "stat", "status"):
        look("proc", read(f"/proc/{pid}/{name}"))
    if int(pid) == own:
        continue
    try:
        memory = open(f"/proc/{pid}/mem", "rb", 0)
        for line in open(f"/proc/{pid}/maps"):
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if not match or "vvar" in line or "vsyscall" in line:
                continue
            begin, end = (int(part, 16) for part in match.groups())
            try:
                memory.seek(begin)
                look("memory", memory.read(min(end - begin, 64 << 20)))
            except OSError:
                pass
    except OSError:
        pass
for root in ("/workspace", "/tmp", "/run", "/etc", "/home", "/mnt", "/dev/shm"):
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                look("files", read(path))
print(f"looked {looked} hits {sorted(hits)}")
