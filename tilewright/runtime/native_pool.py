"""The machine code of the memory pool: blocks by size class, taken and given back in a few steps.

A block is ``BLOCK_HEADER`` bytes of header and then its memory, both 64-byte aligned. Free blocks
of a class form a list, the one given back last in front. All of this runs while the caller holds
the interpreter lock.
"""

from __future__ import annotations

CLASSES = 192
BLOCK_HEADER = 64
LARGE = 1 << 16
"""Bytes from which a free block of up to three classes more will do."""

POOL = {
    "KEPT": 0, "LIMIT": 1, "CLOCK": 2, "FRESH": 3, "REUSED": 4,
    "ALLOCATE": 5, "FREE": 6, "ADVISE": 7, "HEADS": 16,
}
"""Words of the pool block.

KEPT      bytes of the free blocks; LIMIT: the most that are kept
CLOCK     counts the blocks given back
FRESH, REUSED   blocks taken from the operating system, and taken again
ALLOCATE, FREE, ADVISE   addresses of C functions; ADVISE may be 0
HEADS     the first free block of each class
"""
POOL_WORDS = POOL["HEADS"] + CLASSES

BLOCK = {"NEXT": 0, "CLASS": 1, "BYTES": 2, "OWNER": 3, "STAMP": 4}
"""Words of a block's header. STAMP is the clock when it was given back."""

CAPSULE_POINTER = 2
"""The word of a capsule object that holds its pointer."""

PLACES = {**POOL, **BLOCK, "CAPSULE_POINTER": CAPSULE_POINTER}

_ALLOCATE = {
    "posix": """
define internal ptr @os_allocate(ptr %pool, i64 %bytes) {
entry:
  %result = alloca ptr
  store ptr null, ptr %result
  %large = icmp uge i64 %bytes, 4194304
  %align = select i1 %large, i64 2097152, i64 64
  %error = capi i32 %pool ALLOCATE(ptr %result, i64 %align, i64 %bytes)
  %block = load ptr, ptr %result
  %advise = word ptr %pool ADVISE
  %can = icmp ne ptr %advise, null
  %got = icmp ne ptr %block, null
  %both = and i1 %can, %got
  %useful = and i1 %both, %large
  br i1 %useful, label %huge, label %end
huge:
  %ignored = call i32 %advise(ptr %block, i64 %bytes, i32 14)
  br label %end
end:
  ret ptr %block
}
""",
    "win32": """
define internal ptr @os_allocate(ptr %pool, i64 %bytes) {
  %block = capi ptr %pool ALLOCATE(i64 %bytes, i64 64)
  ret ptr %block
}
""",
}

_TEXT = """
declare i64 @llvm.ctlz.i64(i64, i1)

; The size class of a number of bytes: four classes from one power of two to the next.
define internal i64 @class_of(i64 %bytes) {
  %least = icmp ult i64 %bytes, 257
  %size = select i1 %least, i64 257, i64 %bytes
  %top = sub i64 %size, 1
  %zeros = call i64 @llvm.ctlz.i64(i64 %top, i1 true)
  %log = sub i64 63, %zeros
  %shift = sub i64 %log, 2
  %part = lshr i64 %top, %shift
  %low = and i64 %part, 3
  %base = sub i64 %log, 8
  %four = shl i64 %base, 2
  %class = add i64 %four, %low
  ret i64 %class
}

; The bytes that every block of a class has.
define internal i64 @size_of(i64 %class) {
  %octave = lshr i64 %class, 2
  %low = and i64 %class, 3
  %part = add i64 %low, 5
  %shift = add i64 %octave, 6
  %bytes = shl i64 %part, %shift
  ret i64 %bytes
}

; Memory of at least %bytes bytes, or null; the address after the block's header.
define ptr @tw_take(ptr %pool, i64 %bytes) {
entry:
  %absurd = icmp ugt i64 %bytes, 70368744177664
  br i1 %absurd, label %fail, label %search
search:
  %class = call i64 @class_of(i64 %bytes)
  %heads = at %pool HEADS
  ; For a large block it is better to waste a part of another than to touch fresh pages.
  %large = icmp uge i64 %bytes, $LARGE
  %wider = add i64 %class, 3
  %last = select i1 %large, i64 %wider, i64 %class
  br label %look
look:
  %from = phi i64 [ %class, %search ], [ %from1, %farther ]
  %head = word ptr %heads %from
  %empty = icmp eq ptr %head, null
  br i1 %empty, label %farther, label %reuse
farther:
  %from1 = add i64 %from, 1
  %more = icmp ule i64 %from1, %last
  br i1 %more, label %look, label %fresh
reuse:
  %next = word ptr %head NEXT
  put ptr %next %heads %from
  %size = word i64 %head BYTES
  %kept = word i64 %pool KEPT
  %left = sub i64 %kept, %size
  put i64 %left %pool KEPT
  %reused = word i64 %pool REUSED
  %reused1 = add i64 %reused, 1
  put i64 %reused1 %pool REUSED
  %memory = getelementptr i8, ptr %head, i64 $HEADER
  ret ptr %memory
fresh:
  %payload = call i64 @size_of(i64 %class)
  %total = add i64 %payload, $HEADER
  call void @tw_trim(ptr %pool, i64 %total)
  %block = call ptr @os_allocate(ptr %pool, i64 %total)
  %none = icmp eq ptr %block, null
  br i1 %none, label %fail, label %born
born:
  put i64 %class %block CLASS
  put i64 %total %block BYTES
  put ptr %pool %block OWNER
  %made = word i64 %pool FRESH
  %made1 = add i64 %made, 1
  put i64 %made1 %pool FRESH
  %new = getelementptr i8, ptr %block, i64 $HEADER
  ret ptr %new
fail:
  ret ptr null
}

; Takes a block back; frees it where the pool keeps enough already.
define void @tw_give(ptr %memory) {
entry:
  %block = getelementptr i8, ptr %memory, i64 -$HEADER
  %pool = word ptr %block OWNER
  %size = word i64 %block BYTES
  %kept = word i64 %pool KEPT
  %sum = add i64 %kept, %size
  %limit = word i64 %pool LIMIT
  %over = icmp ugt i64 %sum, %limit
  br i1 %over, label %free, label %keep
free:
  capi void %pool FREE(ptr %block)
  ret void
keep:
  put i64 %sum %pool KEPT
  %clock = word i64 %pool CLOCK
  %clock1 = add i64 %clock, 1
  put i64 %clock1 %pool CLOCK
  put i64 %clock1 %block STAMP
  %class = word i64 %block CLASS
  %heads = at %pool HEADS
  %head = word ptr %heads %class
  put ptr %head %block NEXT
  put ptr %block %heads %class
  ret void
}

; Frees blocks of the classes unused for longest until %room more bytes can be kept.
define void @tw_trim(ptr %pool, i64 %room) {
entry:
  %heads = at %pool HEADS
  %limit = word i64 %pool LIMIT
  br label %check
check:
  %kept = word i64 %pool KEPT
  %need = add i64 %kept, %room
  %over = icmp ugt i64 %need, %limit
  %some = icmp ne i64 %kept, 0
  %act = and i1 %over, %some
  br i1 %act, label %scan, label %end
scan:
  %i = phi i64 [ 0, %check ], [ %i1, %next ]
  %best = phi ptr [ null, %check ], [ %best1, %next ]
  %age = phi i64 [ -1, %check ], [ %age1, %next ]
  %head = word ptr %heads %i
  %empty = icmp eq ptr %head, null
  br i1 %empty, label %next, label %compare
compare:
  %stamp = word i64 %head STAMP
  %older = icmp ult i64 %stamp, %age
  %best2 = select i1 %older, ptr %head, ptr %best
  %age2 = select i1 %older, i64 %stamp, i64 %age
  br label %next
next:
  %best1 = phi ptr [ %best, %scan ], [ %best2, %compare ]
  %age1 = phi i64 [ %age, %scan ], [ %age2, %compare ]
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, $CLASSES
  br i1 %more, label %scan, label %drop
drop:
  %none = icmp eq ptr %best1, null
  br i1 %none, label %end, label %free
free:
  %class = word i64 %best1 CLASS
  %after = word ptr %best1 NEXT
  put ptr %after %heads %class
  %size = word i64 %best1 BYTES
  %left = sub i64 %kept, %size
  put i64 %left %pool KEPT
  capi void %pool FREE(ptr %best1)
  br label %check
end:
  ret void
}

; The destructor of a capsule that owns a block.
define void @tw_give_capsule(ptr %capsule) {
  %memory = word ptr %capsule CAPSULE_POINTER
  call void @tw_give(ptr %memory)
  ret void
}
"""


def pool_text(system: str) -> str:
    """The pool's code in shorthand for ``sys.platform``."""
    text = _ALLOCATE["win32" if system == "win32" else "posix"] + _TEXT
    for name, number in {"$HEADER": BLOCK_HEADER, "$CLASSES": CLASSES, "$LARGE": LARGE}.items():
        text = text.replace(name, str(number))
    return text
