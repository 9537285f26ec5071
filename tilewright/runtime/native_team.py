"""The machine code of the thread team: how workers wait, get a job and report that it is done.

Every worker has a mailbox of two cache lines: the job with its epoch, which only the caller writes,
and a flag, which only the worker writes, that says it sleeps. A caller writes a job, then its
epoch, then looks at the flag; a worker raises its flag and then sleeps only while the epoch is the
old one. So either the caller sees the flag or the worker sees the epoch.
"""

from __future__ import annotations

TEAM_WORDS = 64
BOX_WORDS = 16

TEAM = {
    "ARRIVED": 0, "PHASE": 8, "STATUS": 16,
    "DONE": 24,
    "LOCK": 32,
    "THREADS": 40,
    "WORKERS": 41, "BOXES": 42, "SPINS": 43,
    "WAIT": 44, "WAKE": 45, "YIELD": 46,
}
"""Words of the team block. The first three are the program's; the last line is only read in a run.

DONE     workers that have finished the job
LOCK     1 while a caller has the team
THREADS  threads in force where no ``threads`` block says otherwise; 0: ask Python
BOXES    address of the mailboxes; SPINS: looks at a word before a thread sleeps or yields
WAIT, WAKE, YIELD   addresses of the operating system's functions
"""

BOX = {"EPOCH": 0, "PROGRAM": 1, "TABLE": 2, "OF": 3, "SCRATCH": 4, "SLEEPS": 8}
"""Words of a mailbox. PROGRAM 0 tells the worker to leave."""

PLACES = {**TEAM, **BOX, "BOX_WORDS": BOX_WORDS}

_PAUSE = {
    "x86": "  call void @llvm.x86.sse2.pause()",
    "aarch64": "  call void @llvm.aarch64.hint(i32 1)",
}
_DECLARED = {
    "x86": "declare void @llvm.x86.sse2.pause()",
    "aarch64": "declare void @llvm.aarch64.hint(i32)",
}
_FUTEX = {"x86_64": 202, "aarch64": 98, "arm64": 98, "riscv64": 98, "ppc64le": 221}

WAYS_TO_WAIT = {
    "linux": """
define internal void @os_wait(ptr %team, ptr %place, i64 %old) {
  %number = and i64 %old, 4294967295
  %system = word ptr %team WAIT
  %r = call i64 (i64, ...) %system( \
i64 $FUTEX, ptr %place, i64 128, i64 %number, ptr null, ptr null, i64 0)
  ret void
}
define internal void @os_wake(ptr %team, ptr %place) {
  %system = word ptr %team WAKE
  %r = call i64 (i64, ...) %system( \
i64 $FUTEX, ptr %place, i64 129, i64 1, ptr null, ptr null, i64 0)
  ret void
}
""",
    "darwin": """
define internal void @os_wait(ptr %team, ptr %place, i64 %old) {
  %number = and i64 %old, 4294967295
  %system = word ptr %team WAIT
  %r = call i32 %system(i32 1, ptr %place, i64 %number, i32 0)
  ret void
}
define internal void @os_wake(ptr %team, ptr %place) {
  %system = word ptr %team WAKE
  %r = call i32 %system(i32 1, ptr %place, i64 0)
  ret void
}
""",
    "win32": """
define internal void @os_wait(ptr %team, ptr %place, i64 %old) {
  %compare = alloca i64
  store i64 %old, ptr %compare
  %system = word ptr %team WAIT
  %r = call i32 %system(ptr %place, ptr %compare, i64 8, i32 -1)
  ret void
}
define internal void @os_wake(ptr %team, ptr %place) {
  %system = word ptr %team WAKE
  call void %system(ptr %place)
  ret void
}
""",
    "python": """
define internal void @os_wait(ptr %team, ptr %place, i64 %old) {
  %system = word ptr %team WAIT
  call void %system(ptr %place, i64 %old)
  ret void
}
define internal void @os_wake(ptr %team, ptr %place) {
  %system = word ptr %team WAKE
  call void %system(ptr %place)
  ret void
}
""",
}
"""How a thread sleeps on a word and is woken, per operating system; 'python' calls back."""

_WORKER = """
declare i64 @llvm.umin.i64(i64, i64)

; The life of worker number %tid. %seen is its mailbox's epoch when it was hired.
define void @tw_worker(ptr %team, ptr %box, i64 %tid, i64 %seen) {
entry:
  %spins = word i64 %team SPINS
  %done_at = at %team DONE
  %sleeps_at = at %box SLEEPS
  br label %wait
wait:
  %last = phi i64 [ %seen, %entry ], [ %last, %slept ], [ %epoch, %work ]
  br label %look
look:
  %n = phi i64 [ 0, %wait ], [ %n1, %pause ]
  %epoch = load atomic i64, ptr %box acquire, align 8
  %new = icmp ne i64 %epoch, %last
  br i1 %new, label %job, label %pause
pause:
  $PAUSE
  %n1 = add i64 %n, 1
  %again = icmp ult i64 %n1, %spins
  br i1 %again, label %look, label %sleep
sleep:
  store atomic i64 1, ptr %sleeps_at seq_cst, align 8
  fence seq_cst
  %still = load atomic i64, ptr %box seq_cst, align 8
  %unchanged = icmp eq i64 %still, %last
  br i1 %unchanged, label %park, label %slept
park:
  call void @os_wait(ptr %team, ptr %box, i64 %last)
  br label %slept
slept:
  store atomic i64 0, ptr %sleeps_at seq_cst, align 8
  br label %wait
job:
  %program = word ptr %box PROGRAM
  %none = icmp eq ptr %program, null
  br i1 %none, label %leave, label %work
work:
  %table = word ptr %box TABLE
  %of = word i64 %box OF
  %scratch = word ptr %box SCRATCH
  call void %program(ptr %table, i64 %tid, i64 %of, ptr %scratch, ptr %team)
  %counted = atomicrmw add ptr %done_at, i64 1 release
  br label %wait
leave:
  ret void
}

; Writes an epoch and wakes the worker that sleeps on it; %box holds the job already.
define internal void @post(ptr %team, ptr %box) {
entry:
  %epoch = word i64 %box EPOCH
  %next = add i64 %epoch, 1
  store atomic i64 %next, ptr %box seq_cst, align 8
  fence seq_cst
  %sleeps_at = at %box SLEEPS
  %sleeps = load atomic i64, ptr %sleeps_at seq_cst, align 8
  %asleep = icmp ne i64 %sleeps, 0
  br i1 %asleep, label %wake, label %end
wake:
  call void @os_wake(ptr %team, ptr %box)
  br label %end
end:
  ret void
}
"""

_RUN = """
define internal i64 @alone(ptr %program, ptr %table, ptr %scratch) {
  %team = alloca [$TEAM_WORDS x i64], align 64
  put i64 0 %team ARRIVED
  put i64 0 %team PHASE
  put i64 0 %team STATUS
  call void %program(ptr %table, i64 0, i64 1, ptr %scratch, ptr %team)
  %status = word i64 %team STATUS
  ret i64 %status
}

; How many threads are there at once: the caller and the workers up to the first that sleeps. Those
; that sleep are woken, but for the next program.
define internal i64 @awake(ptr %team, i64 %of) {
entry:
  %boxes = word ptr %team BOXES
  br label %look
look:
  %tid = phi i64 [ 1, %entry ], [ %tid1, %next ]
  %ready = phi i64 [ %of, %entry ], [ %ready1, %next ]
  %more = icmp ult i64 %tid, %of
  br i1 %more, label %one, label %end
one:
  %before = sub i64 %tid, 1
  %offset = mul i64 %before, $BOX_WORDS
  %box = at %boxes %offset
  %sleeps_at = at %box SLEEPS
  %sleeps = load atomic i64, ptr %sleeps_at monotonic, align 8
  %asleep = icmp ne i64 %sleeps, 0
  br i1 %asleep, label %nudge, label %next
nudge:
  call void @os_wake(ptr %team, ptr %box)
  %fewer = call i64 @llvm.umin.i64(i64 %ready, i64 %tid)
  br label %next
next:
  %ready1 = phi i64 [ %ready, %one ], [ %fewer, %nudge ]
  %tid1 = add i64 %tid, 1
  br label %look
end:
  ret i64 %ready
}

; Runs a program on up to %wanted threads, or alone where others have the team; returns its status.
; Unless %wake, workers that sleep are left out: the program is over before they would come.
define i64 @tw_run(ptr %team, ptr %program, ptr %table, i64 %wanted, ptr %scratch, i64 %stride, \
i1 %wake) {
entry:
  %several = icmp ugt i64 %wanted, 1
  br i1 %several, label %lock, label %solo
lock:
  %lock_at = at %team LOCK
  %swap = cmpxchg ptr %lock_at, i64 0, i64 1 acquire monotonic, align 8
  %locked = extractvalue { i64, i1 } %swap, 1
  br i1 %locked, label %count, label %solo
count:
  %workers = word i64 %team WORKERS
  %most = add i64 %workers, 1
  %there = call i64 @llvm.umin.i64(i64 %wanted, i64 %most)
  br i1 %wake, label %decide, label %short
short:
  %awake = call i64 @awake(ptr %team, i64 %there)
  br label %decide
decide:
  %of = phi i64 [ %there, %count ], [ %awake, %short ]
  %enough = icmp ugt i64 %of, 1
  br i1 %enough, label %prepare, label %unlock
unlock:
  store atomic i64 0, ptr %lock_at release, align 8
  br label %solo
solo:
  %alone = call i64 @alone(ptr %program, ptr %table, ptr %scratch)
  ret i64 %alone
prepare:
  put i64 0 %team ARRIVED
  put i64 0 %team PHASE
  put i64 0 %team STATUS
  put i64 0 %team DONE
  %boxes = word ptr %team BOXES
  br label %give
give:
  %tid = phi i64 [ 1, %prepare ], [ %tid1, %give ]
  %before = sub i64 %tid, 1
  %offset = mul i64 %before, $BOX_WORDS
  %box = at %boxes %offset
  %skip = mul i64 %tid, %stride
  %own = getelementptr i8, ptr %scratch, i64 %skip
  put ptr %program %box PROGRAM
  put ptr %table %box TABLE
  put i64 %of %box OF
  put ptr %own %box SCRATCH
  call void @post(ptr %team, ptr %box)
  %tid1 = add i64 %tid, 1
  %more = icmp ult i64 %tid1, %of
  br i1 %more, label %give, label %run
run:
  call void %program(ptr %table, i64 0, i64 %of, ptr %scratch, ptr %team)
  %others = sub i64 %of, 1
  %spins = word i64 %team SPINS
  %done_at = at %team DONE
  br label %look
look:
  %n = phi i64 [ 0, %run ], [ %n1, %wait ]
  %done = load atomic i64, ptr %done_at acquire, align 8
  %all = icmp eq i64 %done, %others
  br i1 %all, label %finish, label %spin
spin:
  $PAUSE
  %n1 = add i64 %n, 1
  %patient = icmp ult i64 %n1, %spins
  br i1 %patient, label %wait, label %yield
yield:
  %ignored = capi i32 %team YIELD()
  br label %wait
wait:
  br label %look
finish:
  %status = word i64 %team STATUS
  store atomic i64 0, ptr %lock_at release, align 8
  ret i64 %status
}

; Tells all workers to leave; 0 if somebody has the team, which is then left as it is.
define i64 @tw_dismiss(ptr %team) {
entry:
  %lock_at = at %team LOCK
  %swap = cmpxchg ptr %lock_at, i64 0, i64 1 acquire monotonic, align 8
  %locked = extractvalue { i64, i1 } %swap, 1
  br i1 %locked, label %start, label %busy
busy:
  ret i64 0
start:
  %workers = word i64 %team WORKERS
  %boxes = word ptr %team BOXES
  br label %look
look:
  %i = phi i64 [ 0, %start ], [ %i1, %tell ]
  %more = icmp ult i64 %i, %workers
  br i1 %more, label %tell, label %finish
tell:
  %offset = mul i64 %i, $BOX_WORDS
  %box = at %boxes %offset
  put ptr null %box PROGRAM
  call void @post(ptr %team, ptr %box)
  %i1 = add i64 %i, 1
  br label %look
finish:
  put i64 0 %team WORKERS
  store atomic i64 0, ptr %lock_at release, align 8
  ret i64 1
}
"""


def team_text(system: str, machine: str) -> str:
    """The team's code in shorthand for ``sys.platform`` and ``platform.machine()``."""
    way = way_to_wait(system, machine)
    family = "x86" if machine.lower() in ("x86_64", "amd64", "i686") else machine.lower()
    family = "aarch64" if family == "arm64" else family
    text = WAYS_TO_WAIT[way] + _DECLARED.get(family, "") + _WORKER + _RUN
    for name, value in {
        "$FUTEX": str(_FUTEX.get(machine, 0)), "$BOX_WORDS": str(BOX_WORDS),
        "$TEAM_WORDS": str(TEAM_WORDS), "$PAUSE": _PAUSE.get(family, "").strip(),
    }.items():
        text = text.replace(name, value)
    return text


def way_to_wait(system: str, machine: str) -> str:
    """A key of ``WAYS_TO_WAIT``: the operating system's own, or 'python' where there is none."""
    if system == "linux":
        return "linux" if machine in _FUTEX else "python"
    return system if system in WAYS_TO_WAIT else "python"
