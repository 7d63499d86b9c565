"""Code that tries to get out of a sandbox, and how each attempt has to end.

An attempt that gets through returns a result, so that ``ok`` is always an escape.
"""

from forecasting.sandbox import End

RAISED, CRASHED, NO_RESULT = End.RAISED, End.CRASHED, End.NO_RESULT

_HEAD = "import os, sys, socket, ctypes, threading, subprocess, signal, time\n"


def _code(body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return f"{_HEAD}def decide(context):\n{lines}\n    return {{'escaped': True}}\n"


def _syscall(number: str, *arguments: str) -> str:
    call = ", ".join((number, *arguments))
    return f"if ctypes.CDLL(None, use_errno=True).syscall({call}) < 0: raise OSError('refused')"


ESCAPES: dict[str, tuple[str, set[End]]] = {
    name: (_code(body), ends)
    for name, body, ends in (
        # the network
        (
            "tcp to the host",
            "socket.create_connection(('127.0.0.1', context['port']))",
            {RAISED},
        ),
        ("tcp outside", "socket.create_connection(('1.1.1.1', 53), 2)", {RAISED}),
        (
            "udp",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
            {RAISED},
        ),
        ("unix sockets", "socket.socket(socket.AF_UNIX).connect('\\0abstract')", {RAISED}),
        ("socket pairs", "socket.socketpair()", {RAISED}),
        ("netlink", "socket.socket(16, 3, 0)", {RAISED}),
        ("names", "socket.getaddrinfo('example.com', 80)", {RAISED}),
        # files
        ("passwd", "return {'a': open('/etc/passwd').read()}", {RAISED}),
        ("shadow", "return {'a': open('/etc/shadow').read()}", {RAISED}),
        ("a canary", "return {'a': open(context['canary']).read()}", {RAISED}),
        ("our source", "return {'a': open(context['source']).read()}", {RAISED}),
        (
            "environment of pid 1",
            "open('/proc/1/environ', 'rb').read()",
            {RAISED},
        ),
        ("its own environment", "return {'a': open('/proc/self/environ').read()}", {RAISED}),
        ("environment of the parent", "open(f'/proc/{context[\"pid\"]}/environ').read()", {RAISED}),
        ("memory of the parent", "open(f'/proc/{context[\"pid\"]}/mem', 'rb')", {RAISED}),
        ("the home", "return {'a': os.listdir(context['home'] + '/.ssh')}", {RAISED}),
        ("devices", "open('/dev/mem', 'rb')", {RAISED}),
        ("kernel log", "open('/dev/kmsg')", {RAISED}),
        ("dot dot", "open('/packages/../../../../../../etc/passwd')", {RAISED}),
        # writing
        ("the temporary folder", "open('/tmp/out', 'w')", {RAISED}),
        ("the current folder", "open('out', 'w')", {RAISED}),
        ("shared memory", "open('/dev/shm/out', 'w')", {RAISED}),
        ("the standard library", "open(os.__file__, 'a')", {RAISED}),
        ("beside the canary", "open(context['canary'] + '.new', 'w')", {RAISED}),
        ("the canary gone", "os.unlink(context['canary'])", {RAISED}),
        ("the canary cut", "os.truncate(context['canary'], 0)", {RAISED}),
        ("the canary's mode", "os.chmod(context['canary'], 0o777)", {RAISED}),
        ("a link", "os.symlink('/etc/passwd', 'x'); open('x')", {RAISED}),
        ("a hard link", "os.link(os.__file__, '/tmp/x')", {RAISED}),
        ("a folder", "os.mkdir('/tmp/deep')", {RAISED}),
        ("another root", "os.chroot('/')", {RAISED}),
        # processes and threads
        ("fork", "os.fork()", {RAISED}),
        ("a fork bomb", "while True: os.fork()", {RAISED}),
        ("vfork through subprocess", "subprocess.run(['/bin/true'])", {RAISED}),
        ("spawn", "os.posix_spawn(sys.executable, ['x'], {})", {RAISED}),
        ("a shell", "if os.system('true'): raise OSError", {RAISED}),
        ("exec", "os.execv(sys.executable, ['x', '-c', 'pass'])", {RAISED}),
        ("threads", "threading.Thread(target=print).start()", {RAISED}),
        (
            "a threads bomb",
            "while True: threading.Timer(9, print).start()",
            {RAISED},
        ),
        ("clone", _syscall("56", "0x11", "0", "0", "0", "0"), {RAISED}),
        ("clone3", _syscall("435", "b'\\0' * 88", "88"), {RAISED}),
        # signals
        ("signal the parent", "os.kill(os.getppid(), 9)", {RAISED}),
        ("signal us", "os.kill(context['pid'], signal.SIGTERM)", {RAISED}),
        ("signal everybody", "os.kill(-1, 9)", {RAISED}),
        ("signal by thread", _syscall("234", "context['pid']", "context['pid']", "15"), {RAISED}),
        ("signal by queue", _syscall("129", "context['pid']", "15", "b'\\0' * 128"), {RAISED}),
        ("signal by pidfd", _syscall("434", "context['pid']", "0"), {RAISED}),
        ("signal by owner", "import fcntl\nfcntl.fcntl(1, 8, context['pid'])", {RAISED}),
        # system calls past the interpreter
        ("ptrace", _syscall("101", "16", "context['pid']", "0", "0"), {RAISED}),
        (
            "foreign memory",
            _syscall("310", "context['pid']", "0", "0", "0", "0", "0"),
            {RAISED},
        ),
        ("mount", _syscall("165", "b'x'", "b'/tmp'", "b'tmpfs'", "0", "0"), {RAISED}),
        ("unshare", _syscall("272", "0x10000000"), {RAISED}),
        ("namespaces", _syscall("308", "0", "0"), {RAISED}),
        ("keys", _syscall("250", "0", "0"), {RAISED}),
        ("bpf", _syscall("321", "0", "0", "0"), {RAISED}),
        ("io_uring", _syscall("425", "8", "b'\\0' * 120"), {RAISED}),
        ("userfaultfd", _syscall("323", "0"), {RAISED}),
        ("perf", _syscall("298", "0", "0", "-1", "-1", "0"), {RAISED}),
        ("memory that has no limit", _syscall("319", "b'x'", "0"), {RAISED}),
        ("shared memory of old", _syscall("29", "0", "1 << 20", "0o1600"), {RAISED}),
        ("more limits", _syscall("302", "0", "9", "b'\\xff' * 16", "0"), {RAISED}),
        ("less filter", _syscall("157", "22", "0", "0", "0", "0"), {RAISED}),
        ("a pivot", _syscall("155", "b'/'", "b'/'"), {RAISED}),
        # killed by a service's own filter, where there is one
        ("x32 calls", _syscall("0x40000000 + 39"), {RAISED, CRASHED}),
        (
            "limits by name",
            "import resource\nresource.setrlimit(9, (-1, -1))",
            {RAISED},
        ),
        # what may not be had without end
        ("memory", "x = []\nwhile True: x.append(bytearray(10**8))", {End.MEMORY}),
        ("memory at once", "bytearray(2**40)", {End.MEMORY}),
        ("numpy's memory", "import numpy\nnumpy.ones(2**33)", {End.MEMORY}),
        ("an endless loop", "while True: pass", {End.TIMEOUT}),
        ("sleep", "time.sleep(3600)", {End.TIMEOUT}),
        ("deaf to signals", "signal.signal(24, signal.SIG_IGN)\nwhile True: pass", {RAISED}),
        ("a closed door", "os.closerange(0, 99)\nwhile True: pass", {End.TIMEOUT}),
        ("10 GB printed", "for _ in range(10**4): print('x' * 10**6)", {End.OUTPUT_TOO_LARGE}),
        ("10 GB to stderr", "while True: os.write(2, b'x' * 10**6)", {End.OUTPUT_TOO_LARGE}),
        ("a result of 10 MB", "return {'a': 'x' * 10**7}", {End.OUTPUT_TOO_LARGE}),
        ("open files", "x = [open(os.__file__) for _ in range(1000)]", {RAISED}),
        ("endless nesting", "def f(): f()\nf()", {RAISED}),
        # forgery
        ("a printed result", 'print(\'{"side":"long"}\'); raise OSError', {RAISED}),
        ("a printed frame", "print('0' * 32, 'returned', '{}'); raise OSError", {RAISED}),
        ("a frame", "os.write(3, b'0' * 32 + b' returned {}\\n'); os._exit(0)", {End.FORGED}),
        ("a frame before ours", "os.write(3, b'{}\\n')", {End.FORGED}),
        ("a flood of frames", "while True: os.write(3, b'x' * 10**6)", {End.FORGED}),
        ("no result", "os._exit(0)", {NO_RESULT}),
        ("leaving", "sys.exit(0)", {NO_RESULT}),
        ("leaving with a code", "os._exit(70)", {NO_RESULT}),
        ("no dict", "return [1]", {RAISED}),
        ("not JSON", "return {'a': {1, 2}}", {RAISED}),
        ("not a number", "return {'a': float('nan')}", {RAISED}),
        (
            "a false error",
            "class E(Exception):\n    def __str__(self): raise self\nraise E",
            {RAISED},
        ),
        # the interpreter itself
        ("a crash", "ctypes.string_at(0)", {CRASHED}),
        ("abort", "os.abort()", {CRASHED}),
        ("more input", "if not sys.stdin.read(): raise EOFError", {RAISED}),
        ("a prompt", "input()", {RAISED}),
    )
}
